// One view of the slide with a map over it. All panes show the same place.
import { state, on, tell } from "./state.js";
import { coloursOf, hatchPath, loadValues, pictureOf } from "./overlay.js";
import { tileSource } from "./tile_source.js";
import { drawShapes } from "./shapes.js";

export const panes = [];
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
let leader = null;         // the pane that is moved; the others follow

export class Pane {
  constructor(number) {
    const node = document.importNode($("pane").content, true).firstElementChild, part = name => node.querySelector(name);
    Object.assign(this, {
      number, node, index: -1, one: null, select: part("select"), label: part(".evidence b"), title: part(".evidence span"),
      stage: part(".stage"), deep: part(".deep"), over: part(".over"), bar: part(".bar"), ticks: part(".ticks"), legend: part(".legend"),
      unit: part(".unit span"), hatch: part(".hatch"), scaleText: part(".scale span"), scaleBar: part(".scale i"), tip: part(".tip"),
    });
    this.select.setAttribute("aria-label", number ? "Second map" : "Map");
    $("panes").append(node); panes.push(this);
    this.ink = this.over.getContext("2d");
    this.viewer = OpenSeadragon({
      element: this.deep, drawer: "canvas", showNavigationControl: false, showNavigator: number === 0, navigatorPosition: "BOTTOM_RIGHT",
      navigatorSizeRatio: .16, navigatorBackground: "#fff", navigatorBorderColor: "#87919a", navigatorOpacity: 1, navigatorAutoFade: false, animationTime: still ? 0 : .5, maxZoomPixelRatio: 8, minZoomImageRatio: .7, visibilityRatio: .3,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true }, gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
      imageLoaderLimit: 6, maxImageCacheCount: 300, preserveImageSizeOnResize: true, silenceMultiImageWarnings: true,
    });
    this.viewer.canvas.append(this.over);    // over the slide, under the small overview
    this.viewer.addHandler("canvas-key", event => { event.preventDefaultAction = true; });
    this.viewer.addHandler("update-viewport", () => this.draw());
    this.viewer.addHandler("animation", () => this.lead());
    this.viewer.addHandler("animation-finish", () => { this.lead(); if (leader === this || !leader) tell("moved"); });
    this.viewer.addHandler("open", () => {
      this.draw(); tell("opened", this);
      this.viewer.world.getItemAt(0).addHandler("fully-loaded-change", event => { this.stage.dataset.loaded = event.fullyLoaded ? "yes" : "no"; });
    });
    this.viewer.addHandler("tile-load-failed", () => tell("tile-failed"));
    for (const name of ["pointerdown", "wheel", "touchstart"]) this.stage.addEventListener(name, () => { leader = this; }, { capture: true, passive: true });
    this.stage.addEventListener("pointermove", event => this.point(event));
    this.stage.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    this.select.onchange = () => this.choose(+this.select.value);
    node.querySelector(".previous").onclick = () => this.step(-1);
    node.querySelector(".next").onclick = () => this.step(1);
    new ResizeObserver(() => this.draw()).observe(this.stage);
  }
  get item() { return this.viewer.world.getItemAt(0); }
  get shown() { return !this.node.hidden; }

  open() {                                   // the slide, or the same slide from another source
    const before = this.item && this.slide === state.key ? this.viewer.viewport.getBounds() : null;
    this.slide = state.key; this.stage.dataset.loaded = "no";
    this.viewer.open(tileSource());
    if (before) this.viewer.addOnceHandler("open", () => this.viewer.viewport.fitBounds(before, true));
  }
  fill() {                                   // the maps of a new slide
    const names = [...new Set(state.facts.layers.map(one => one.group))];
    const groups = names.map(group => {
      const node = make("optgroup", undefined, { label: group });
      node.append(...state.facts.layers.flatMap((one, i) => one.group === group ? [make("option", one.label, { value: i })] : []));
      return node;
    });
    this.select.replaceChildren(make("option", "Slide alone", { value: -1 }), ...groups);
  }
  step(by) { const n = state.facts.layers.length + 1; this.choose((this.index + 1 + by + n) % n - 1); }
  async choose(index) {
    this.index = index; this.select.value = index; this.tip.hidden = true;
    const wanted = index < 0 ? null : state.facts.layers[index];
    try { if (wanted) await loadValues(index); } catch (error) { tell("failed", error); return; }
    if (this.index !== index || (wanted && !state.facts.layers.includes(wanted))) return;   // another was chosen meanwhile
    this.one = wanted; this.explain(); this.draw(); tell("map", this);
  }
  explain() {
    const one = this.one;
    this.node.classList.toggle("pale", !!one && one.pale); this.legend.classList.toggle("none", !one);
    this.label.textContent = one ? one.label : "Slide alone"; this.label.title = one ? one.name : ""; this.title.textContent = one ? one.title : "";
    if (!one) return;
    paintBar(this.bar, one, coloursOf(one), state.opacity); fillTicks(this.ticks, one);
    this.unit.textContent = unitWords(one); this.hatch.hidden = !state.leftOut;
  }
  // Where level-0 pixel (0, 0) lies on the screen, and screen pixels per level-0 pixel.
  place() {
    const item = this.item, [width, height] = state.facts.size, P = OpenSeadragon.Point;
    const a = item.imageToViewerElementCoordinates(new P(0, 0)), b = item.imageToViewerElementCoordinates(new P(width, height));
    return { left: a.x, top: a.y, kx: (b.x - a.x) / width, ky: (b.y - a.y) / height };
  }
  draw() {
    if (!this.shown || !this.item || !state.facts) return;
    const wide = this.stage.clientWidth, high = this.stage.clientHeight, ratio = window.devicePixelRatio || 1, ink = this.ink;
    const w = Math.round(wide * ratio), h = Math.round(high * ratio);
    if (this.over.width !== w || this.over.height !== h) { this.over.width = w; this.over.height = h; }
    ink.setTransform(1, 0, 0, 1, 0, 0); ink.clearRect(0, 0, w, h); ink.setTransform(ratio, 0, 0, ratio, 0, 0);
    const at = this.place(), { left, top, kx, ky } = at, [columns, rows] = state.facts.grid, [sx, sy] = state.facts.step, [tx, ty] = state.facts.span, one = this.one;
    if (one && one.values && state.opacity > 0) {
      const [W, H] = state.facts.size;       // the last tiles of the grid reach over the slide's edge, where nothing is
      ink.save(); ink.beginPath(); ink.rect(left, top, W * kx, H * ky); ink.clip();
      ink.imageSmoothingEnabled = false; ink.globalAlpha = strength(one, state.opacity);
      ink.drawImage(pictureOf(one), left, top, columns * sx * kx, rows * sy * ky);
      ink.globalAlpha = 1;
      if (state.leftOut) {
        ink.clip(hatchPath({ x0: -left / kx, y0: -top / ky, x1: (wide - left) / kx, y1: (high - top) / ky }, kx, ky, left, top));
        const pattern = ink.createPattern(hatchTile, "repeat"); pattern.setTransform(new DOMMatrix([.7, 0, 0, .7, 0, 0]));
        ink.fillStyle = pattern; ink.fillRect(0, 0, wide, high);
      }
      ink.restore();
    }
    drawShapes(ink, at);
    if (state.ring) for (const [width, colour] of [[6, "#fff"], [3, "#0b57d0"]]) {
      ink.lineWidth = width; ink.strokeStyle = colour; ink.strokeRect(left + state.ring[0] * kx - 2, top + state.ring[1] * ky - 2, tx * kx + 4, ty * ky + 4);
    }
    const um = roundLength(wide / 4 / kx * state.facts.mpp[0]);
    this.scaleText.textContent = lengthLabel(um); this.scaleBar.style.width = um / state.facts.mpp[0] * kx + "px";
    this.stage.dataset.place = [left, top, kx, ky].join(" ");
  }
  lead() {
    if ((leader || panes[0]) !== this) return;
    const view = this.viewer.viewport;
    for (const other of panes) if (other !== this && other.shown && other.item) {
      other.viewer.viewport.zoomTo(view.getZoom(true), null, true); other.viewer.viewport.panTo(view.getCenter(true), true);
    }
  }
  level0(event) {                            // where the pointer is, level-0 pixels
    const box = this.stage.getBoundingClientRect(), at = this.place();
    return [(event.clientX - box.left - at.left) / at.kx, (event.clientY - box.top - at.top) / at.ky];
  }
  point(event) {
    const one = this.one, note = this.tip;
    if (!one || !one.values || !this.item || document.body.classList.contains("drawing")) { note.hidden = true; return; }
    const [X, Y] = this.level0(event), [columns, rows] = state.facts.grid, [sx, sy] = state.facts.step;
    const c = Math.floor(X / sx), r = Math.floor(Y / sy), i = c >= 0 && r >= 0 && c < columns && r < rows ? state.cellAt[r * columns + c] : -1;
    if (i < 0) { note.hidden = true; return; }
    const flag = state.flags ? state.facts.flags.words[state.flags[i]] : "";
    showNote(note, tileWords(one, one.values[i], flag, state.leftOut && state.leftOut[i], c * sx, r * sy), this.stage, event);
  }
}
export const redraw = () => panes.forEach(pane => pane.draw());

// Move all panes: to a box of level-0 pixels, by a share of what is seen, or nearer by a factor.
function moved(move) { leader = panes[0]; if (panes[0].item) move(panes[0].viewer.viewport, panes[0].item); }
export const fitBox = (x, y, w, h, now) => moved((view, item) => view.fitBounds(item.imageToViewportRectangle(x, y, w, h), !!now));
export const zoomBy = factor => moved(view => { view.zoomBy(factor); view.applyConstraints(); });
export const panBy = (dx, dy) => moved(view => { const seen = view.getBounds(); view.panBy(new OpenSeadragon.Point(dx * seen.width, dy * seen.height)); view.applyConstraints(); });
export const goHome = now => moved(view => { state.ring = null; view.goHome(now === true); });
export function flyTo(x, y) {                // to a tile, with what lies around it
  const [w, h] = state.facts.span;
  state.ring = [x, y];
  panes[0].viewer.addOnceHandler("animation-finish", () => { document.body.dataset.at = x + "," + y; });
  delete document.body.dataset.at;
  fitBox(x - 2.5 * w, y - 2.5 * h, 6 * w, 6 * h); redraw();
}
export const seesAll = () => {               // whether the whole slide is in view
  const view = panes[0].item && panes[0].viewer.viewport;
  return !!view && view.getZoom() <= view.getHomeZoom() * 1.001;
};
export function viewed() {                   // centre, and level-0 pixels per screen pixel
  const at = panes[0].place(), stage = panes[0].stage;
  return { x: (stage.clientWidth / 2 - at.left) / at.kx, y: (stage.clientHeight / 2 - at.top) / at.ky, scale: 1 / at.kx };
}
export function lookAt({ x, y, scale }) {
  const stage = panes[0].stage, w = stage.clientWidth * scale, h = stage.clientHeight * scale;
  fitBox(x - w / 2, y - h / 2, w, h, true);
}
on("look", () => { panes.forEach(pane => pane.explain()); redraw(); });
on("areas", redraw);
