"use strict";
// What every page with maps has in common: numbers as text, colours of tiles, colour bars, histograms, lengths.
const $ = id => document.getElementById(id);
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const minus = text => text.replace("-", "\u2212");
const number = v => minus(v !== 0 && (Math.abs(v) >= 1e4 || Math.abs(v) < 1e-3) ? v.toExponential(2) : String(+v.toPrecision(3)));
const shownValue = (one, score) => one.scale ? (score - one.scale[0]) / one.scale[1] : score;

function make(tag, text, attributes) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  return Object.assign(node, attributes);
}
function rank(one, value) {                // share of cells below the value
  let low = 0, high = one.sorted.length;
  while (low < high) { const mid = (low + high) >> 1; if (one.sorted[mid] < value) low = mid + 1; else high = mid; }
  return low / one.sorted.length;
}
const LEFT_OUT_ALPHA = 73;                 // tiles that summaries leave out are weak, under the hatch
// A map as pixels, one a grid cell, transparent where there is no tile, or where its shown value is below `from`.
function paintCells(image, cells, v, one, colours, leftOut, from = -Infinity) {
  const [low, high] = one.range;
  for (let i = 0; i < v.length; i++) {
    const shown = shownValue(one, v[i]);
    if (shown < from) continue;
    const c = 3 * Math.max(0, Math.min(255, Math.round((shown - low) / (high - low) * 255)));
    const p = 4 * (cells[2 * i + 1] * image.width + cells[2 * i]);
    image.data[p] = colours[c]; image.data[p + 1] = colours[c + 1]; image.data[p + 2] = colours[c + 2];
    image.data[p + 3] = leftOut && leftOut[i] ? LEFT_OUT_ALPHA : 255;
  }
}
// What is said of a tile under the pointer. flag: what was seen on it, "" for nothing; gone: summaries leave it out.
function tileWords(one, v, flag, gone, x, y) {
  const lines = [one.label, make("br")];
  if (one.scale) lines.push(make("b", "z " + number(shownValue(one, v))), "  score " + number(v));
  else lines.push(make("b", number(v)), one.group === "Attention" ? "  x average" : "");
  lines.push(make("br"), "above " + Math.floor(rank(one, v) * 100) + " % of tiles");
  if (one.pale) lines.push(make("br"), "not validated");
  if (flag) lines.push(make("br"), flag + (gone ? ": left out" : ""));
  lines.push(make("br"), "x " + Math.round(x) + ", y " + Math.round(y) + " px");
  return lines;
}
function showNote(note, lines, stage, event) {   // beside the pointer, inside of the stage
  note.replaceChildren(...lines); note.hidden = false;
  const box = stage.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  note.style.left = Math.max(4, Math.min(x + 14, box.width - note.offsetWidth - 4)) + "px";
  note.style.top = (y + 18 + note.offsetHeight > box.height ? Math.max(4, y - note.offsetHeight - 12) : y + 18) + "px";
}
const strength = (one, opacity) => one.pale ? opacity / 2 : opacity;

const hatchTile = make("canvas");
hatchTile.width = hatchTile.height = 12;
{
  const ink = hatchTile.getContext("2d"); ink.strokeStyle = "#333"; ink.lineWidth = 3;
  ink.beginPath(); for (const d of [-12, 0, 12]) { ink.moveTo(d - 2, 14); ink.lineTo(d + 14, -2); } ink.stroke();
}

function roundLength(most) {               // a round number of microns, at most this many
  const power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].map(s => s * power).find(s => s <= most * 1.000001);
}
const lengthLabel = um => um >= 1000 ? um / 1000 + " mm" : um + " \u00b5m";

function paintBar(canvas, one, colours, opacity) {
  const ink = canvas.getContext("2d"), image = ink.createImageData(256, 1), o = strength(one, opacity);
  for (let i = 0; i < 256; i++) { for (let k = 0; k < 3; k++) image.data[4 * i + k] = o * colours[3 * i + k] + (1 - o) * 240; image.data[4 * i + 3] = 255; }
  ink.putImageData(image, 0, 0);
}
function fillTicks(node, one) {
  const [low, high] = one.range, parts = one.scale ? 6 : 2;
  node.replaceChildren(...Array.from({ length: parts + 1 }, (_, i) => make("span", (i === 0 ? "\u2264 " : i === parts ? "\u2265 " : "") + number(low + (high - low) * i / parts))));
}
const unitWords = one => one.unit[0].toUpperCase() + one.unit.slice(1) + "; " + one.span + ".";

function svg(parent, tag, attributes, text) {
  const node = document.createElementNS(parent.namespaceURI, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
}
function roundValues(low, high) {          // round numbers within a range, two to six
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 5, 10].map(s => s * power).find(s => s >= rough * .999999);
  const first = Math.ceil(low / step - 1e-6), last = Math.floor(high / step + 1e-6);
  return Array.from({ length: last - first + 1 }, (_, i) => +((first + i) * step).toPrecision(6));
}
function drawHistogram(node, one) {
  node.replaceChildren();
  const h = one && one.histogram; if (!h) return "";
  const most = Math.max(...h.counts, 1), x = v => 8 + (v - h.low) / (h.high - h.low) * 304, bin = 304 / h.counts.length;
  if (h.known) svg(node, "rect", { class: "known", x: x(h.known[0]), y: 4, width: Math.max(1, x(h.known[2]) - x(h.known[0])), height: 100 });
  h.counts.forEach((n, i) => { if (n) svg(node, "rect", { class: "bin", x: 8 + i * bin, y: 104 - 96 * n / most, width: Math.max(.6, bin - .6), height: 96 * n / most }); });
  if (h.known) svg(node, "line", { x1: x(h.known[1]), x2: x(h.known[1]), y1: 4, y2: 104, "stroke-dasharray": "3 3" });
  svg(node, "line", { x1: 8, x2: 312, y1: 104, y2: 104 });
  for (const v of roundValues(h.low, h.high)) {
    svg(node, "line", { x1: x(v), x2: x(v), y1: 104, y2: 108 });
    svg(node, "text", { x: x(v), y: 120, "text-anchor": x(v) < 24 ? "start" : x(v) > 296 ? "end" : "middle" }, number(v));
  }
  node.setAttribute("aria-label", "Histogram of the tiles' scores, " + number(h.low) + " to " + number(h.high));
  if (!h.known) return "The bundle does not say which scores to expect.";
  return "Yellow: 1st to 99th percentile of the scores on held-out sections; dashed: their median. " + (h.outside === null ? "No tile of this slide counts." : Math.round(h.outside * 100) + " % of this slide's tiles lie outside.");
}
