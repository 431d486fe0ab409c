// The page around the maps: gallery, table, print.
function galleryRow(node, one, side, choose) {
  const tiles = one && one.tiles ? one.tiles[side] : [];
  node.replaceChildren(...tiles.map(([tile, score]) => {
    const [x, y] = D.gallery.tiles[tile], text = (one.scale ? "z " : "") + number(shownValue(one, score));
    const image = make("img", undefined, { alt: "", src: tilePicture(String(tile), redraw).src });
    if (!choose) { const figure = make("figure"); figure.append(image, text, make("br"), "x " + x + ", y " + y); return figure; }
    const button = make("button"); button.append(image, make("span", text));
    button.setAttribute("aria-label", "Tile at x " + x + ", y " + y + " px, " + text + ": show on the map");
    button.dataset.tile = tile; button.onclick = () => choose(String(tile), x, y, text);
    return button;
  }));
  return tiles.length;
}
function showTile(tile, x, y, text) {
  const um = Math.round(D.span[0] * D.mpp[0]);
  $("large-picture").src = tilePicture(tile).src; $("large-picture").alt = "Tile at x " + x + ", y " + y + " px";
  $("large-text").textContent = text + "; x " + x + ", y " + y + " px; " + um + " \u00b5m across, " + number(D.gallery.mpp) + " \u00b5m/px.";
  $("large").classList.add("on"); fly(x, y);
  const box = $("map").getBoundingClientRect();
  if (box.bottom < 80 || box.top > innerHeight - 80) $("maps-title").scrollIntoView({ block: "start" });
}
function changed(map) {                    // another map was chosen
  if (map !== maps[0]) return;
  const one = map.one;
  document.querySelectorAll("tr[data-layer]").forEach(row => row.classList.toggle("on", +row.dataset.layer === map.index));
  document.querySelectorAll(".of-map").forEach(node => { node.textContent = one ? ": " + one.label : ""; });
  $("known").textContent = drawHistogram($("histogram"), one);
  if (!D.gallery) return;
  $("large").classList.remove("on");
  const shown = galleryRow($("highest"), one, 0, showTile) + galleryRow($("lowest"), one, 1, showTile);
  $("no-gallery").hidden = !one || shown > 0; $("rule").hidden = !shown;
  $("rule").textContent = "Shown: " + D.gallery.rule + ". Click a tile to find it on the map.";
}

const first = new SlideMap(""), second = new SlideMap("2");
maps.push(first, second);
$("two").onclick = () => {
  const on = second.view.hidden; second.view.hidden = !on;
  document.body.classList.toggle("two", on); $("two").setAttribute("aria-pressed", on);
  if (on && second.index < 0) second.choose(Math.min(D.layers.length - 1, first.index + 1));
  redraw();
};
$("in").onclick = () => zoomAt(1.6, .5, .5); $("out").onclick = () => zoomAt(1 / 1.6, .5, .5);
$("home").onclick = () => { shared.zoom = 1; shared.x = shared.y = 0; shared.ring = null; redraw(); };
const opacityText = () => { $("opacity-text").textContent = Math.round(shared.opacity * 100) + " %"; };
$("opacity").oninput = event => { shared.opacity = event.target.value / 100; opacityText(); maps.forEach(map => map.explain()); redraw(); };
$("outline").onchange = event => { shared.outline = event.target.checked; redraw(); };
if (!D.mask) $("outline-text").textContent = "Outline of the scored tiles";
$("print").onclick = () => window.print();
window.addEventListener("resize", redraw);

// Table: choose, sort within each group, search, mark for print.
const listed = [...document.querySelectorAll("tr[data-layer]")];
const sortKeys = new Map(listed.map(row => [row, { ...JSON.parse(row.dataset.sort), name: row.querySelector("th button").textContent.toLowerCase() }]));
listed.forEach(row => row.addEventListener("click", event => {
  if (event.target.closest(".choose")) return;
  first.choose(+row.dataset.layer); $("maps-title").scrollIntoView({ block: "start" });
}));
document.querySelectorAll("#table thead th[data-key]").forEach(head => head.querySelector("button").onclick = () => {
  const key = head.dataset.key, down = key === "name" ? head.getAttribute("aria-sort") === "ascending" : head.getAttribute("aria-sort") !== "descending";
  document.querySelectorAll("#table thead th").forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  document.querySelectorAll("#table tbody").forEach(body => {
    const rows = [...body.querySelectorAll("tr[data-layer]")];
    rows.sort((a, b) => {
      const p = sortKeys.get(a)[key], q = sortKeys.get(b)[key];
      if (p === null || q === null) return (p === null) - (q === null);   // what is not known comes last
      return (p < q ? -1 : p > q ? 1 : 0) * (down ? -1 : 1);
    });
    body.append(...rows);
  });
});
$("search").oninput = () => {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const row of listed) {
    const text = (row.querySelector("th button").title + " " + row.querySelector("th").textContent).toLowerCase().replaceAll("_", " ");
    row.hidden = !words.every(word => text.includes(word)); found += !row.hidden;
  }
  document.querySelectorAll("#table tr.group").forEach(row => { row.hidden = !row.parentNode.querySelector("tr[data-layer]:not([hidden])"); });
  $("found").textContent = words.length ? found + " of " + listed.length : "";
};
$("all").onchange = event => listed.forEach(row => { if (!row.hidden) row.querySelector(".chosen").checked = event.target.checked; });

// Print: one page per chosen map; where none is chosen, the one on the screen.
function sheet(one) {
  const page = document.importNode($("sheet").content, true).firstElementChild;
  const canvas = page.querySelector(".picture"), wide = widthUm >= heightUm ? 1800 : Math.round(1800 * widthUm / heightUm);
  canvas.width = wide; canvas.height = Math.round(wide * heightUm / widthUm);
  const ink = canvas.getContext("2d"), whole = { zoom: 1, x: 0, y: 0 };
  drawMap(ink, canvas.width, canvas.height, whole, one, shared.opacity, { outline: shared.outline });
  const length = scaleLength(1), bar = length / widthUm * wide, base = canvas.height - 26;
  ink.setTransform(1, 0, 0, 1, 0, 0); ink.fillStyle = "rgba(255,255,255,.9)"; ink.fillRect(16, base - 52, bar + 32, 66);
  ink.fillStyle = "#1d2327"; ink.fillRect(32, base - 6, bar, 8); ink.font = "30px sans-serif"; ink.fillText(lengthLabel(length), 32, base - 16);
  // Drawn while printing, a canvas is recorded and played back at another size (Chromium); reading a pixel fixes it.
  ink.putImageData(ink.getImageData(0, 0, 1, 1), 0, 0);
  page.querySelector(".s-label").textContent = one ? one.label : "Slide";
  page.querySelector(".s-title").textContent = one ? one.title : "";
  page.classList.toggle("pale", !!one && one.pale);
  if (one) {
    drawBar(page.querySelector(".bar"), one, shared.opacity); fillTicks(page.querySelector(".ticks"), one);
    page.querySelector(".s-unit").textContent = unitWords(one) + (hatched ? " Hatched: left out of summaries." : "");
    page.querySelector(".s-known").textContent = drawHistogram(page.querySelector(".histogram"), one);
  } else for (const name of [".bar", ".ticks", ".histogram"]) page.querySelector(name).remove();
  const tiles = page.querySelector(".s-tiles");
  if (D.gallery && one && one.tiles && one.tiles[0].length) for (const [side, name] of [[0, "Highest tiles"], [1, "Lowest tiles"]]) {
    const row = make("div", undefined, { className: "gallery" }); galleryRow(row, one, side);
    if (row.children.length) tiles.append(make("h2", name), row);
  }
  return page;
}
function makeSheets() {
  const chosen = [...document.querySelectorAll(".chosen:checked")].map(box => +box.value).sort((a, b) => a - b);
  const numbers = chosen.length ? chosen : [...new Set([first.index, ...(second.view.hidden ? [] : [second.index])])];
  const sheets = $("sheets"); sheets.classList.add("measured");
  sheets.replaceChildren(...numbers.map(number => sheet(D.layers[number])));
  // The picture takes what the words leave of the page: A4 less its margins is 273 mm high and 186 mm wide.
  for (const page of sheets.children) {
    const picture = page.querySelector(".picture"), room = 273 - 8 - page.offsetHeight * 25.4 / 96;
    const mm = Math.min(186 / widthUm, Math.max(50, room) / heightUm);
    picture.style.width = widthUm * mm + "mm"; picture.style.height = heightUm * mm + "mm";
  }
  sheets.classList.remove("measured"); document.body.classList.add("sheets");
}
window.addEventListener("beforeprint", makeSheets);
matchMedia("print").addEventListener("change", event => { if (event.matches) makeSheets(); });
window.addEventListener("afterprint", () => { document.body.classList.remove("sheets"); $("sheets").replaceChildren(); });

document.documentElement.style.setProperty("--aspect", widthUm / heightUm);
document.body.classList.toggle("portrait", widthUm / heightUm < .95);
const whole = new Image();
whole.onload = () => { picture = whole; opacityText(); first.choose(D.layers.length ? 0 : -1); document.body.dataset.ready = "yes"; };
whole.src = D.picture;
