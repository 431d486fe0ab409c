"use strict";
// The page's data: decoded once, drawn by the maps.
const $ = id => document.getElementById(id);
const D = JSON.parse($("data").textContent);
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const words = text => { const b = bytes(text); return new Uint16Array(b.buffer, 0, b.length >> 1); };
const cells = words(D.cells), count = cells.length / 2;
const palettes = Object.fromEntries(Object.entries(D.palettes).map(([name, text]) => [name, bytes(text)]));
const [x0, y0, x1, y1] = D.box, [stepX, stepY] = D.step, [columns, rows] = D.grid;
const widthUm = (x1 - x0) * D.mpp[0], heightUm = (y1 - y0) * D.mpp[1];
const cellAt = new Int32Array(columns * rows).fill(-1);
for (let i = 0; i < count; i++) cellAt[cells[2 * i + 1] * columns + cells[2 * i]] = i;
const flagCodes = D.flags && bytes(D.flags.codes), leftOut = D.flags && bytes(D.flags.leftOut);

const minus = text => text.replace("-", "\u2212");
const number = v => minus(v !== 0 && (Math.abs(v) >= 1e4 || Math.abs(v) < 1e-3) ? v.toExponential(2) : String(+v.toPrecision(3)));
const shownValue = (one, score) => one.scale ? (score - one.scale[0]) / one.scale[1] : score;

function values(one) {                     // scores by cell, and in ascending order
  if (!one.values) {
    const codes = D.bits === 16 ? words(one.data) : bytes(one.data), top = D.bits === 16 ? 65535 : 255, [a, b] = one.quantised;
    one.values = Float32Array.from(codes, c => a + (b - a) * c / top);
    one.sorted = one.values.slice().sort();
  }
  return one.values;
}
function rank(one, value) {                // share of cells below the value
  let low = 0, high = one.sorted.length;
  while (low < high) { const mid = (low + high) >> 1; if (one.sorted[mid] < value) low = mid + 1; else high = mid; }
  return low / one.sorted.length;
}
function make(tag, text, attributes) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  return Object.assign(node, attributes);
}
function overlayOf(one) {                  // one pixel a grid cell, transparent where there is no tile
  if (one.overlay) return one.overlay;
  const overlay = make("canvas"); overlay.width = columns; overlay.height = rows;
  const ink = overlay.getContext("2d"), image = ink.createImageData(columns, rows), v = values(one), [low, high] = one.range, colours = palettes[one.palette];
  for (let i = 0; i < count; i++) {
    const c = 3 * Math.max(0, Math.min(255, Math.round((shownValue(one, v[i]) - low) / (high - low) * 255)));
    const p = 4 * (cells[2 * i + 1] * columns + cells[2 * i]);
    image.data[p] = colours[c]; image.data[p + 1] = colours[c + 1]; image.data[p + 2] = colours[c + 2];
    image.data[p + 3] = leftOut && leftOut[i] ? 73 : 255;    // tiles that summaries leave out are weak, under the hatch
  }
  ink.putImageData(image, 0, 0);
  return one.overlay = overlay;
}
const overlays = [];                       // the last few are kept: 50 maps of a large slide would take much memory
function keep(one) {
  const at = overlays.indexOf(one); if (at >= 0) overlays.splice(at, 1);
  overlays.push(one); if (overlays.length > 6) overlays.shift().overlay = null;
}
const strength = (one, opacity) => one.pale ? opacity / 2 : opacity;

// Outline: of the tissue mask where the result has one, else of the scored tiles; in level-0 pixels.
function outlinePath() {
  const path = new Path2D();
  let w = columns, h = rows, left = 0, top = 0, kx = stepX, ky = stepY, inside = (x, y) => cellAt[y * columns + x] >= 0;
  if (D.mask) {
    const bits = bytes(D.mask.bits), [a, b, c, d] = D.mask.box; [w, h] = D.mask.size;
    left = a; top = b; kx = (c - a) / w; ky = (d - b) / h;
    inside = (x, y) => { const i = y * w + x; return (bits[i >> 3] >> (i & 7)) & 1; };
  }
  const at = (x, y) => x >= 0 && y >= 0 && x < w && y < h && inside(x, y) ? 1 : 0;
  const line = (xa, ya, xb, yb) => { path.moveTo(left + xa * kx, top + ya * ky); path.lineTo(left + xb * kx, top + yb * ky); };
  for (let y = 0; y <= h; y++) for (let x = 0, from = -1; x <= w; x++) {
    const edge = x < w && at(x, y) !== at(x, y - 1);
    if (edge && from < 0) from = x; else if (!edge && from >= 0) { line(from, y, x, y); from = -1; }
  }
  for (let x = 0; x <= w; x++) for (let y = 0, from = -1; y <= h; y++) {
    const edge = y < h && at(x, y) !== at(x - 1, y);
    if (edge && from < 0) from = y; else if (!edge && from >= 0) { line(x, from, x, y); from = -1; }
  }
  return path;
}
function hatchPath() {                     // the cells that are left out, in level-0 pixels
  const path = new Path2D();
  for (let i = 0; i < count; i++) if (leftOut[i]) path.rect(cells[2 * i] * stepX, cells[2 * i + 1] * stepY, stepX, stepY);
  return path;
}
const outline = outlinePath(), hatched = leftOut && leftOut.some(v => v) ? hatchPath() : null;
const hatchTile = make("canvas");
hatchTile.width = hatchTile.height = 12;
{
  const ink = hatchTile.getContext("2d"); ink.strokeStyle = "#333"; ink.lineWidth = 3;
  ink.beginPath(); for (const d of [-12, 0, 12]) { ink.moveTo(d - 2, 14); ink.lineTo(d + 14, -2); } ink.stroke();
}

let picture = null;                        // the slide, as an image
const tilePictures = new Map();            // pictures of the gallery's tiles
function tilePicture(tile, done) {
  let image = tilePictures.get(tile);
  if (!image) {
    image = new Image(); tilePictures.set(tile, image); image.src = "data:image/jpeg;base64," + D.gallery.tiles[tile][2];
  }
  if (done && !image.complete) image.addEventListener("load", done, { once: true });
  return image;
}

// Draw the slide with a map over it. view: {zoom, x, y}, the top-left corner as a share of the picture.
function drawMap(ink, wide, high, view, one, opacity, options) {
  const W = wide * view.zoom, H = high * view.zoom, kx = W / (x1 - x0), ky = H / (y1 - y0);
  const left = -view.x * W - x0 * kx, top = -view.y * H - y0 * ky;   // where level-0 pixel (0, 0) lies
  ink.setTransform(1, 0, 0, 1, 0, 0); ink.globalAlpha = 1;
  ink.fillStyle = "#fff"; ink.fillRect(0, 0, wide, high);
  ink.imageSmoothingEnabled = true; ink.imageSmoothingQuality = "high";
  ink.drawImage(picture, left + x0 * kx, top + y0 * ky, W, H);
  if (options.tiles) for (const tile of options.tiles) {             // sharp where the gallery has the tile
    const image = tilePictures.get(tile), [x, y] = D.gallery.tiles[tile];
    if (image && image.complete && D.span[0] * kx > 40) ink.drawImage(image, left + x * kx, top + y * ky, D.span[0] * kx, D.span[1] * ky);
  }
  if (one) {
    ink.imageSmoothingEnabled = false; ink.globalAlpha = strength(one, opacity);
    ink.drawImage(overlayOf(one), left, top, columns * stepX * kx, rows * stepY * ky); keep(one);
    ink.globalAlpha = 1;
    if (hatched && opacity > 0) {
      ink.save(); ink.setTransform(kx, 0, 0, ky, left, top); ink.clip(hatched); ink.setTransform(1, 0, 0, 1, 0, 0);
      const pattern = ink.createPattern(hatchTile, "repeat"); pattern.setTransform(new DOMMatrix([wide / 1300, 0, 0, wide / 1300, 0, 0]));
      ink.imageSmoothingEnabled = true; ink.fillStyle = pattern; ink.fillRect(0, 0, wide, high); ink.restore();
    }
  }
  if (options.outline) {
    const path = new Path2D(); path.addPath(outline, new DOMMatrix([kx, 0, 0, ky, left, top]));
    const thick = Math.max(1, wide / 1000);
    ink.lineWidth = 3.4 * thick; ink.strokeStyle = "rgba(255,255,255,.8)"; ink.stroke(path);
    ink.lineWidth = 1.7 * thick; ink.strokeStyle = "#1d2327"; ink.stroke(path);
  }
  if (options.ring) {
    const [x, y] = options.ring;
    for (const [width, colour] of [[7, "#fff"], [3.5, "#0b57d0"]]) {
      ink.lineWidth = width; ink.strokeStyle = colour; ink.strokeRect(left + x * kx - 2, top + y * ky - 2, D.span[0] * kx + 4, D.span[1] * ky + 4);
    }
  }
}
function scaleLength(zoom) {               // a round number of microns, at most a quarter of what is seen
  const most = widthUm / zoom / 4, power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].map(s => s * power).find(s => s <= most * 1.000001);
}
const lengthLabel = um => um >= 1000 ? um / 1000 + " mm" : um + " \u00b5m";

function drawBar(canvas, one, opacity) {
  const ink = canvas.getContext("2d"), image = ink.createImageData(256, 1), colours = palettes[one.palette], o = strength(one, opacity);
  for (let i = 0; i < 256; i++) { for (let k = 0; k < 3; k++) image.data[4 * i + k] = o * colours[3 * i + k] + (1 - o) * 240; image.data[4 * i + 3] = 255; }
  ink.putImageData(image, 0, 0);
}
function fillTicks(node, one) {
  const [low, high] = one.range, parts = one.scale ? 6 : 2;
  node.replaceChildren(...Array.from({ length: parts + 1 }, (_, i) => make("span", (i === 0 ? "\u2264 " : i === parts ? "\u2265 " : "") + number(low + (high - low) * i / parts))));
}
const unitWords = one => one.unit[0].toUpperCase() + one.unit.slice(1) + "; " + one.span + ".";

function svg(tag, attributes, text) {
  const node = document.createElementNS($("histogram").namespaceURI, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
function drawHistogram(node, one) {
  node.replaceChildren();
  const h = one && one.histogram; if (!h) return "";
  const most = Math.max(...h.counts, 1), x = v => 8 + (v - h.low) / (h.high - h.low) * 304, bin = 304 / h.counts.length;
  if (h.known) node.append(svg("rect", { class: "known", x: x(h.known[0]), y: 4, width: Math.max(1, x(h.known[2]) - x(h.known[0])), height: 100 }));
  h.counts.forEach((n, i) => { if (n) node.append(svg("rect", { class: "bin", x: 8 + i * bin, y: 104 - 96 * n / most, width: Math.max(.6, bin - .6), height: 96 * n / most })); });
  if (h.known) node.append(svg("line", { x1: x(h.known[1]), x2: x(h.known[1]), y1: 4, y2: 104, "stroke-dasharray": "3 3" }));
  node.append(svg("line", { x1: 8, x2: 312, y1: 104, y2: 104 }));
  for (const [v, anchor] of [[h.low, "start"], [(h.low + h.high) / 2, "middle"], [h.high, "end"]]) node.append(svg("text", { x: x(v), y: 120, "text-anchor": anchor }, number(v)));
  node.setAttribute("aria-label", "Histogram of the tiles' scores, " + number(h.low) + " to " + number(h.high));
  if (!h.known) return "The bundle does not say which scores to expect.";
  return "Yellow: 1st to 99th percentile of the scores on held-out sections; dashed: their median. " + Math.round(h.outside * 100) + " % of this slide's tiles lie outside.";
}
