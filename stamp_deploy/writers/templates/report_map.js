// One map on the screen. All maps share what they show of the slide: where one is moved, the other follows.
const shared = { zoom: 1, x: 0, y: 0, opacity: .5, outline: true, ring: null };
const maps = [];
const MOST_ZOOM = Math.max(40, (x1 - x0) / D.span[0] / 1.5);
const redraw = () => maps.forEach(map => map.draw());

function clampView() {
  shared.zoom = Math.min(MOST_ZOOM, Math.max(1, shared.zoom));
  const most = 1 - 1 / shared.zoom;
  shared.x = Math.min(most, Math.max(0, shared.x)); shared.y = Math.min(most, Math.max(0, shared.y));
}
function zoomAt(factor, px, py) {          // px, py: the point that stays, as a share of the canvas
  const before = shared.zoom; shared.zoom = Math.min(MOST_ZOOM, Math.max(1, before * factor));
  shared.x += px / before - px / shared.zoom; shared.y += py / before - py / shared.zoom; clampView(); redraw();
}
function fly(x, y) {                       // to the tile whose corner lies at level-0 (x, y)
  shared.ring = [x, y];
  const zoom = Math.min(MOST_ZOOM, Math.max(4, (x1 - x0) / D.span[0] / 7));
  const cx = (x + D.span[0] / 2 - x0) / (x1 - x0), cy = (y + D.span[1] / 2 - y0) / (y1 - y0);
  const from = { ...shared }, to = { zoom, x: cx - .5 / zoom, y: cy - .5 / zoom };
  const steps = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1 : 18;
  let step = 0;
  const next = () => {
    const t = ++step / steps, s = t * t * (3 - 2 * t);
    shared.zoom = from.zoom * (to.zoom / from.zoom) ** s;
    shared.x = from.x + (to.x - from.x) * s; shared.y = from.y + (to.y - from.y) * s;
    clampView(); redraw();
    if (step < steps) requestAnimationFrame(next); else document.body.dataset.at = x + "," + y;
  };
  next();
}

class SlideMap {
  constructor(suffix) {
    for (const name of ["view", "layer", "shown", "evidence", "stage", "map", "scale-text", "scale-bar", "tip", "legend", "bar", "ticks", "unit", "hatch"])
      this[name.replace("-t", "T").replace("-b", "B")] = $(name + suffix);
    this.ink = this.map.getContext("2d"); this.index = -1; this.fingers = new Map(); this.gap = 0;
    $("previous" + suffix).onclick = () => this.step(-1);
    $("next" + suffix).onclick = () => this.step(1);
    this.layer.onchange = event => this.choose(+event.target.value);
    this.listen();
  }
  get one() { return D.layers[this.index]; }
  step(by) { const n = D.layers.length + 1; this.choose((this.index + 1 + by + n) % n - 1); }
  choose(index) {
    this.index = index; this.layer.value = index; this.tip.hidden = true;
    const one = this.one;
    this.view.classList.toggle("pale", !!one && one.pale);
    this.shown.textContent = one ? one.label : "Slide alone"; this.shown.title = one ? one.name : "";
    this.evidence.textContent = one ? one.title : "";
    this.map.setAttribute("aria-label", one ? "Slide with the map of " + one.label + " laid over it" : "Slide");
    this.explain(); this.draw(); changed(this);
  }
  explain() {
    const one = this.one; this.legend.style.visibility = one ? "" : "hidden";
    if (!one) return;
    drawBar(this.bar, one, shared.opacity); fillTicks(this.ticks, one);
    this.unit.textContent = unitWords(one); this.hatch.hidden = !hatched;
  }
  draw() {
    if (!picture || this.view.hidden) return;
    const wide = this.map.clientWidth, ratio = Math.max(window.devicePixelRatio || 1, 2), high = wide * heightUm / widthUm;
    if (!wide) return;
    const w = Math.round(wide * ratio), h = Math.round(high * ratio);
    if (this.map.width !== w || this.map.height !== h) { this.map.width = w; this.map.height = h; }
    const tiles = D.gallery && shared.zoom > 3 ? [...tilePictures.keys()] : null;
    drawMap(this.ink, w, h, shared, this.one, shared.opacity, { outline: shared.outline, ring: shared.ring, tiles });
    const length = scaleLength(shared.zoom), share = length / widthUm * shared.zoom;
    this.scaleBar.style.width = share * wide + "px";           // where cqw is unknown
    this.scaleBar.style.width = 100 * share + "cqw";
    this.scaleText.textContent = lengthLabel(length);
    this.map.classList.toggle("zoomed", shared.zoom > 1);
  }
  point(event) {                           // the event's place as a share of the canvas
    const box = this.map.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, box];
  }
  tell(event) {
    const [px, py] = this.point(event), one = this.one, note = this.tip;
    const X = x0 + (shared.x + px / shared.zoom) * (x1 - x0), Y = y0 + (shared.y + py / shared.zoom) * (y1 - y0);
    const c = Math.floor(X / stepX), r = Math.floor(Y / stepY), i = c >= 0 && r >= 0 && c < columns && r < rows ? cellAt[r * columns + c] : -1;
    if (!one || i < 0 || px < 0 || py < 0 || px > 1 || py > 1) { note.hidden = true; return; }
    const flag = flagCodes ? D.flags.words[flagCodes[i]] : "";
    const lines = tileWords(one, values(one)[i], flag, leftOut && leftOut[i], c * stepX, r * stepY);
    showNote(note, lines, this.stage, event);
  }
  drag(event) {
    const old = this.fingers.get(event.pointerId), [, , box] = this.point(event);
    if (!old) return;
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.fingers.size === 2) {
      const [a, b] = [...this.fingers.values()], now = Math.hypot(a[0] - b[0], a[1] - b[1]);
      if (this.gap) zoomAt(now / this.gap, ((a[0] + b[0]) / 2 - box.left) / box.width, ((a[1] + b[1]) / 2 - box.top) / box.height);
      this.gap = now;
    } else if (shared.zoom > 1) {
      shared.x -= (event.clientX - old[0]) / box.width / shared.zoom; shared.y -= (event.clientY - old[1]) / box.height / shared.zoom; clampView(); redraw();
    }
  }
  listen() {
    const map = this.map;
    map.addEventListener("pointerdown", e => { this.fingers.set(e.pointerId, [e.clientX, e.clientY]); if (shared.zoom > 1 || this.fingers.size > 1) map.setPointerCapture(e.pointerId); this.gap = 0; this.tell(e); });
    map.addEventListener("pointermove", e => { this.drag(e); this.tell(e); });
    for (const name of ["pointerup", "pointercancel"]) map.addEventListener(name, e => { this.fingers.delete(e.pointerId); this.gap = 0; });
    map.addEventListener("pointerleave", e => { if (e.pointerType === "mouse") this.tip.hidden = true; });
    map.addEventListener("wheel", e => {
      if (!(e.ctrlKey || e.metaKey)) return;
      e.preventDefault(); const [px, py] = this.point(e); zoomAt(Math.exp(-e.deltaY / 300), px, py); this.tell(e);
    }, { passive: false });
    map.addEventListener("keydown", e => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
      if (e.key === "+" || e.key === "=") zoomAt(1.5, .5, .5); else if (e.key === "-") zoomAt(1 / 1.5, .5, .5);
      else if (e.key === "0") { shared.zoom = 1; shared.x = shared.y = 0; redraw(); }
      else if (move && shared.zoom > 1) { shared.x += move[0] * .1 / shared.zoom; shared.y += move[1] * .1 / shared.zoom; clampView(); redraw(); } else return;
      e.preventDefault();
    });
  }
}
