// The panel beside the slide: sliders and histogram, gallery, what is known of the slide.
import { galleryUrl } from "./api.js";
import { shareShown } from "./overlay.js";
import { flyTo, panes } from "./pane.js";
import { on, state, tell, threshold } from "./state.js";

const TABS = ["map", "tiles", "areas", "slide"];
export function openTab(name) {
  for (const tab of TABS) { $("tab-" + tab).setAttribute("aria-selected", tab === name); $("on-" + tab).hidden = tab !== name; }
}
const paragraph = (text, className = "") => make("p", text, { className });
const bullets = lines => { const list = make("ul", undefined, { className: "plain" }); list.append(...lines.map(line => make("li", line))); return list; };

function sliders() {
  const one = panes[0].one;
  $("opacity").value = Math.round(100 * state.opacity); $("opacity-text").textContent = Math.round(100 * state.opacity) + " %";
  $("from").value = state.from; $("from").disabled = !one;
  $("from-text").textContent = !one || !state.from ? "all tiles" : (one.scale ? "z " : "") + number(threshold(one));
  $("from-share").textContent = one && state.from ? `${(100 * shareShown(one)).toFixed(1)} % of the tiles are shown.` : "";
}
function row(node, one, side) {
  const tiles = one && one.tiles ? one.tiles[side] : [];
  node.replaceChildren(...tiles.map(([tile, score]) => {
    const [x, y] = state.facts.gallery.places[tile], text = (one.scale ? "z " : "") + number(shownValue(one, score));
    const button = make("button"); button.append(make("img", undefined, { alt: "", loading: "lazy", src: galleryUrl(state.key, tile) }), make("span", text));
    button.setAttribute("aria-label", `Tile at x ${x}, y ${y} px, ${text}: show it on the slide`); button.dataset.tile = tile;
    button.onclick = () => {
      document.querySelectorAll(".gallery button").forEach(other => other.removeAttribute("aria-current"));
      button.setAttribute("aria-current", "true"); flyTo(x, y);
      if (matchMedia("(max-width: 760px)").matches) $("panes").scrollIntoView({ block: "start" });
    };
    return button;
  }));
  return tiles.length;
}
function map() {                             // another map in the first pane
  const one = panes[0].one;
  sliders(); $("known").textContent = drawHistogram($("histogram"), one);
  $("histogram").style.display = one && one.histogram ? "" : "none";
  const shown = state.facts.gallery ? row($("highest"), one, 0) + row($("lowest"), one, 1) : 0;
  for (const heading of $("on-tiles").querySelectorAll("h2")) heading.hidden = !shown;
  if (!shown) { $("highest").replaceChildren(); $("lowest").replaceChildren(); }
  $("no-gallery").hidden = shown > 0; $("rule").textContent = shown ? "Shown: " + state.facts.gallery.rule + ". Click a tile to go there." : "";
}
function slide() {
  const F = state.facts, trust = F.trust;
  $("name").textContent = F.name; document.title = F.name + ": viewer";
  $("about").textContent = [`${F.size_mm[0]} x ${F.size_mm[1]} mm`, `${number(F.mpp[0])} \u00b5m/px`, `${F.tiles.toLocaleString("en")} tiles`, F.bundle].join(" \u00b7 ");
  const chip = $("verdict"); chip.textContent = trust.name; chip.className = "chip " + trust.verdict.replaceAll(" ", "-"); chip.hidden = false; chip.title = trust.meaning;
  $("trust").replaceChildren(make("h2", "Does this slide look like what the model knows?"), paragraph(`${trust.name}. ${trust.meaning}`), bullets(trust.reasons), ...[trust.left_out, ...trust.facts].filter(Boolean).map(text => paragraph(text, "quiet")));
  $("calls").replaceChildren(...(F.calls.length ? F.calls.map(call => {
    const node = paragraph("", "call"); node.append(call.name + ": ", make("b", call.call), make("br"));
    node.append(`${call.value_name} ${"<>".includes(call.value[0]) ? "" : "= "}${call.value}` + (call.interval ? ` (${call.interval[0]} to ${call.interval[1]})` : ""));
    if (call.thresholds.length) node.append(make("br"), "threshold " + call.thresholds.join(", "));
    if (call.abstain) node.append(`; no call from ${call.abstain[0]} to ${call.abstain[1]}`);
    return node;
  }) : [paragraph("The bundle has no slide-level heads.", "quiet")]));
  $("warnings").replaceChildren(...(F.warnings.length ? [Object.assign(bullets(F.warnings), { className: "" })] : []));
  $("validation").replaceChildren(...(F.validation.length ? [make("h2", "How far scores were checked"), ...F.validation.map(text => paragraph(text))] : []));
  const facts = [["Scored", F.started_utc.slice(0, 16).replace("T", " ")], ["Bundle", F.bundle], ["Model", F.pfm], ["Tissue", F.tissue_mm2 ? F.tissue_mm2 + " mm\u00b2" : "not recorded"], ["SHA-256", F.sha256]];
  $("facts").replaceChildren(...facts.flatMap(([term, value]) => [make("dt", term), make("dd", value)]));
  $("research-use").textContent = F.research_use;
}
export function listenForDetails() {
  for (const tab of TABS) $("tab-" + tab).onclick = () => openTab(tab);
  document.querySelector(".tabs").addEventListener("keydown", event => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key]; if (!by) return;
    const at = TABS.findIndex(tab => $("tab-" + tab) === event.target), next = TABS[(at + by + TABS.length) % TABS.length];
    event.stopPropagation(); openTab(next); $("tab-" + next).focus();
  });
  $("opacity").oninput = event => { state.opacity = event.target.value / 100; tell("look"); };
  $("from").oninput = event => { state.from = +event.target.value; tell("look"); };
  on("look", sliders); on("slide", slide); on("tab", openTab);
  on("map", pane => { if (pane === panes[0]) map(); });
}
