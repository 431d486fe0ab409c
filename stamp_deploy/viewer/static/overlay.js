// Maps as pictures of one pixel a grid cell. Values come when a map is first looked at; the last few maps are kept.
import { state, threshold } from "./state.js";
import { valuesOf } from "./api.js";

const KEPT = 8;
let kept = [];             // maps with their values
let drawn = [];            // {one, from, canvas}
let palettes = {};

export function forget() { kept = []; drawn = []; palettes = {}; }
export const coloursOf = one => palettes[one.palette] ||= bytes(state.facts.palettes[one.palette]);

export async function loadValues(number) {
  const one = state.facts.layers[number], key = state.key;
  if (one.values) return one;
  const values = await valuesOf(key, number);
  one.values = values; one.sorted = values.slice().sort();
  kept.push(one);
  if (kept.length > KEPT) { const old = kept.shift(); old.values = old.sorted = null; drawn = drawn.filter(item => item.one !== old); }
  return one;
}
export function pictureOf(one) {
  const from = threshold(one), found = drawn.find(item => item.one === one && item.from === from);
  if (found) return found.canvas;
  const canvas = make("canvas"); [canvas.width, canvas.height] = state.facts.grid;
  const ink = canvas.getContext("2d"), image = ink.createImageData(canvas.width, canvas.height);
  paintCells(image, state.cells, one.values, one, coloursOf(one), state.leftOut, from);
  ink.putImageData(image, 0, 0);
  drawn.push({ one, from, canvas });
  if (drawn.length > KEPT) drawn.shift();
  return canvas;
}
export function shareShown(one) {          // share of tiles at or above the threshold
  const from = threshold(one);
  if (from === -Infinity || !one.sorted) return 1;
  const [centre, spread] = one.scale || [0, 1];
  return 1 - rank(one, from * spread + centre);
}
// The hatch of tiles that are left out, clipped to what is seen: {x0, y0, x1, y1} in level-0 pixels.
export function hatchPath(seen, kx, ky, left, top) {
  const path = new Path2D(), [sx, sy] = state.facts.step;
  state.leftOut.forEach((gone, i) => {
    if (!gone) return;
    const x = state.cells[2 * i] * sx, y = state.cells[2 * i + 1] * sy;
    if (x + sx > seen.x0 && x < seen.x1 && y + sy > seen.y0 && y < seen.y1) path.rect(left + x * kx, top + y * ky, sx * kx, sy * ky);
  });
  return path;
}
