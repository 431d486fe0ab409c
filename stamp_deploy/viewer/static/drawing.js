// Drawing an area: corners by clicks, or a line with the button held down. Enter or a double click closes it.
import { panes, redraw } from "./pane.js";
import { shapes } from "./shapes.js";
import { tell } from "./state.js";

const FREEHAND_STEP_PX = 5, CLOSE_PX = 10;
let down = null;           // {x, y, moved} on the screen while the button is held

export const drawing = () => document.body.classList.contains("drawing");
export function setDrawing(on) {
  document.body.classList.toggle("drawing", on); $("draw").setAttribute("aria-pressed", on);
  shapes.open = []; shapes.hover = null; down = null;
  panes.forEach(pane => pane.viewer.setMouseNavEnabled(!on)); redraw();
}
export function closeArea() {
  const ring = shapes.open.map(([x, y]) => [Math.round(x * 10) / 10, Math.round(y * 10) / 10]);
  setDrawing(false);
  if (ring.length >= 3) tell("drawn", [[[...ring, ring[0]]]]);
}
export function undoCorner() { shapes.open.pop(); redraw(); }

export function listenForDrawing(pane) {
  const over = pane.over;
  over.addEventListener("pointerdown", event => {
    if (!drawing() || event.button) return;
    const first = shapes.open[0], at = pane.place();
    const box = pane.stage.getBoundingClientRect();
    if (shapes.open.length > 2 && Math.hypot(at.left + first[0] * at.kx - (event.clientX - box.left), at.top + first[1] * at.ky - (event.clientY - box.top)) < CLOSE_PX) { closeArea(); return; }
    over.setPointerCapture(event.pointerId);
    shapes.open.push(pane.level0(event)); down = { x: event.clientX, y: event.clientY, moved: 0 }; redraw();
  });
  over.addEventListener("pointermove", event => {
    if (!drawing()) return;
    if (down && Math.hypot(event.clientX - down.x, event.clientY - down.y) >= FREEHAND_STEP_PX) {
      shapes.open.push(pane.level0(event)); down = { x: event.clientX, y: event.clientY, moved: down.moved + 1 };
    }
    shapes.hover = down ? null : pane.level0(event); redraw();
  });
  over.addEventListener("pointerup", () => {
    const freehand = down && down.moved > 8; down = null;
    if (drawing() && freehand) closeArea();
  });
  over.addEventListener("dblclick", () => { if (drawing() && shapes.open.length > 2) closeArea(); });
  over.addEventListener("wheel", event => {     // zooming goes on while an area is drawn
    event.preventDefault();
    const box = pane.stage.getBoundingClientRect(), P = OpenSeadragon.Point, view = pane.viewer.viewport;
    view.zoomBy(Math.exp(-event.deltaY / 400), view.viewerElementToViewportCoordinates(new P(event.clientX - box.left, event.clientY - box.top)));
  }, { passive: false });
}
