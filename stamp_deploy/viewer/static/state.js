// What is shown now. Parts of the page listen for what changes: "slide", "map", "look", "areas", "moved".
export const state = {
  key: null,               // of the slide
  facts: null,             // what the server tells of it
  source: null,            // where its tiles come from
  cells: null,             // (column, row) of each tile
  cellAt: null,            // tile of each grid cell, -1 for none
  flags: null, leftOut: null,
  opacity: .7,
  from: 0,                 // tiles are shown from this share of the colour range on; 0: all
  ring: null,              // corner of the tile that is marked, level-0 pixels
};
const listeners = new Map();
export const on = (name, call) => listeners.set(name, [...(listeners.get(name) || []), call]);
export const tell = (name, ...values) => (listeners.get(name) || []).forEach(call => call(...values));

export function threshold(one) {           // the shown value from which on tiles are shown
  const [low, high] = one.range;
  return state.from > 0 ? low + (high - low) * state.from / 100 : -Infinity;
}
export function toast(text) {
  const node = $("toast"); node.textContent = text; node.hidden = false;
  clearTimeout(toast.timer); toast.timer = setTimeout(() => { node.hidden = true; }, 5000);
}
