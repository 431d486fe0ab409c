// Keys that work wherever nothing is typed.
import { copyLink } from "./link.js";
import { closeArea, drawing, setDrawing, undoCorner } from "./drawing.js";
import { goHome, panBy, panes, zoomBy } from "./pane.js";
import { openTab } from "./details.js";
import { save } from "./areas.js";
import { step } from "./slides.js";
import { state, tell } from "./state.js";

let before = .7;           // opacity before the map was hidden
const KEYS = [
  [["ArrowLeft"], "Left", "Move", () => panBy(-.2, 0)], [["ArrowRight"], "", "", () => panBy(.2, 0)], [["ArrowUp"], "", "", () => panBy(0, -.2)], [["ArrowDown"], "", "", () => panBy(0, .2)],
  [["+", "="], "+", "Nearer", () => zoomBy(1.5)], [["-"], "-", "Further", () => zoomBy(1 / 1.5)], [["0"], "0", "Whole slide", goHome],
  [["]"], "]", "Next map", () => panes[0].step(1)], [["["], "[", "Previous map", () => panes[0].step(-1)],
  [["o"], "O", "Map on and off", () => { if (state.opacity) before = state.opacity; state.opacity = state.opacity ? 0 : before; tell("look"); }],
  [["s"], "S", "Two maps", () => $("two").click()], [["d"], "D", "Draw an area", () => setDrawing(!drawing())],
  [["n"], "N", "Next slide", () => step(1)], [["p"], "P", "Previous slide", () => step(-1)],
  [["1"], "1 to 4", "Map, tiles, areas, slide", () => openTab("map")], [["2"], "", "", () => openTab("tiles")], [["3"], "", "", () => openTab("areas")], [["4"], "", "", () => openTab("slide")],
  [["l"], "L", "Copy link", copyLink], [["?"], "?", "These keys", () => $("help").showModal()],
];
const WHILE_DRAWING = { Enter: closeArea, Escape: () => setDrawing(false), Backspace: undoCorner };

export function listenForKeys() {
  const rows = [["Arrows", "Move"], ...KEYS.filter(([, shown]) => shown && shown !== "Left").map(([, shown, what]) => [shown, what]), ["Ctrl+S", "Save areas"], ["Enter", "Finish the area"], ["Backspace", "Remove its last corner"], ["Escape", "Cancel the area"]];
  $("help-rows").replaceChildren(...rows.map(([key, what]) => { const row = make("tr"), cell = make("th"); cell.append(make("kbd", key)); row.append(cell, make("td", what)); return row; }));
  $("keys").onclick = () => $("help").showModal();
  document.addEventListener("keydown", event => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s") { event.preventDefault(); save(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || !state.facts || $("help").open) return;
    const target = event.target, typed = target.matches("input:not([type=range]), select, textarea"), sliding = target.matches("input[type=range]") && event.key.startsWith("Arrow");
    if (typed || sliding) return;
    if (drawing() && WHILE_DRAWING[event.key]) { event.preventDefault(); WHILE_DRAWING[event.key](); return; }
    const found = KEYS.find(([keys]) => keys.includes(event.key) || keys.includes(event.key.toLowerCase()));
    if (found) { event.preventDefault(); found[3](); }
  });
}
