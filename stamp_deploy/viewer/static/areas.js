// The list of areas: kept by the server when they are saved, with figures of the chosen one.
import { annotationsOf, exportUrl, figuresOf, saveAnnotations } from "./api.js";
import { fitBox } from "./pane.js";
import { shapes } from "./shapes.js";
import { on, state, tell, toast } from "./state.js";

let revision = "", unsaved = false, broken = false;
const COLOURS = [[220, 50, 47], [38, 110, 190], [42, 150, 90], [200, 120, 10], [130, 80, 180], [20, 150, 160]];

export const hasUnsaved = () => unsaved;
export async function loadAreas() {
  shapes.areas = []; shapes.chosen = null; unsaved = false; broken = false; revision = ""; $("figures").hidden = true;
  const key = state.key;
  try {
    const found = await annotationsOf(key);
    if (key === state.key) take(found);
  } catch (error) { broken = true; $("saved").textContent = error.message; list(); }
}
function take(found) {
  const chosen = shapes.chosen && shapes.chosen.id;
  revision = found.revision; shapes.areas = found.annotations; unsaved = false;
  shapes.chosen = shapes.areas.find(area => area.id === chosen) || null;
  $("saved").textContent = ""; list(); tell("areas");
}
function changed() { unsaved = true; $("saved").textContent = "Not saved yet."; list(); tell("areas"); }

function list() {
  const counts = {};
  $("areas").replaceChildren(...shapes.areas.map(area => {
    const row = make("li"), swatch = make("canvas", undefined, { width: 1, height: 1 }), ink = swatch.getContext("2d");
    ink.fillStyle = `rgb(${area.colour})`; ink.fillRect(0, 0, 1, 1); swatch.setAttribute("aria-hidden", "true");
    counts[area.class] = (counts[area.class] || 0) + 1;
    const name = `${area.class} ${counts[area.class]}`;
    const pick = make("button", name, { className: "pick-area", title: "Show its figures" });
    const go = make("button", "Go", { title: "Go to " + name }), gone = make("button", "Delete", { title: "Delete " + name });
    go.setAttribute("aria-label", "Go to " + name); gone.setAttribute("aria-label", "Delete " + name);
    pick.onclick = () => choose(area); go.onclick = () => { show(area); choose(area); };
    gone.onclick = () => { shapes.areas = shapes.areas.filter(other => other !== area); if (shapes.chosen === area) choose(null); changed(); };
    row.classList.toggle("on", area === shapes.chosen); row.append(swatch, pick, go, gone);
    return row;
  }));
  $("no-areas").hidden = shapes.areas.length > 0;
  $("save").disabled = !unsaved || broken;
  const link = $("export"); link.hidden = !revision || unsaved; link.href = revision ? exportUrl(state.key) : "#";
  $("classes").replaceChildren(...[...new Set(shapes.areas.map(area => area.class))].map(value => make("option", undefined, { value })));
}
function show(area) {
  const corners = area.polygons.flat(2), xs = corners.map(p => p[0]), ys = corners.map(p => p[1]);
  const x = Math.min(...xs), y = Math.min(...ys), w = Math.max(...xs) - x, h = Math.max(...ys) - y;
  fitBox(x - .2 * w, y - .2 * h, 1.4 * w, 1.4 * h);
}
async function choose(area) {
  shapes.chosen = area; list(); tell("areas"); $("figures").hidden = true;
  if (!area) return;
  try {
    const figures = await figuresOf(state.key, area.polygons);
    if (shapes.chosen === area) tabulate(figures);
  } catch (error) { toast(error.message); }
}
function tabulate(found) {
  const dash = "\u2013", high = found.pathways.some(row => row.share_above !== null), mm2 = value => number(value) + " mm\u00b2", inZ = found.pathways.length > 0 && found.pathways.every(row => row.mean_z !== null);
  $("figures-about").textContent = `${mm2(found.area_mm2)}, of which ${mm2(found.tissue_mm2)} scored tissue in ${found.tiles} tiles` + (found.left_out ? `; ${found.left_out} left out` : "") + ".";
  $("figures-rows").replaceChildren(...found.pathways.map(row => {
    const line = make("tr", undefined, { className: row.pale ? "pale" : "" }), value = (z, score) => { const v = inZ ? z : score; return v === null ? dash : number(v); };
    const limits = inZ ? row.interval_z : row.interval, mean = make("td", value(row.mean_z, row.mean), { className: "n" });
    if (limits) mean.append(make("small", `${number(limits[0])} to ${number(limits[1])}`));
    line.append(make("th", row.label + (row.pale ? " (not validated)" : "")), mean, make("td", value(row.slide_mean_z, row.slide_mean), { className: "n" }));
    if (high) line.append(make("td", row.share_above === null ? dash : Math.round(100 * row.share_above) + " %", { className: "n" }));
    return line;
  }));
  $("above-head").hidden = !high;
  $("figures-unit").textContent = found.pathways.length ? `Means, weighted by tissue, in ${inZ ? "z on the scale that all slides share" : found.unit}. ${high ? `High: tissue of z ${number(found.high_z)} or more. ` : ""}${found.pathways.some(row => row.interval) ? "Below a mean: its 95 % interval, by blocks of this area. " : ""}${found.no_interval_because ? `Without an interval: ${found.no_interval_because}. ` : ""}The same figures as --roi-use split.` : "No scored tile has half of its tissue in this area.";
  $("figures").hidden = false;
}
export async function save() {
  if (!unsaved || broken) return;
  try {
    const wanted = { revision, annotations: shapes.areas };
    take(await saveAnnotations(state.key, wanted));
    $("saved").textContent = "Saved.";
  } catch (error) {
    $("saved").textContent = error.message;
    if (error.status === 409) toast(error.message);
  }
}
export function listenForAreas() {
  $("save").onclick = save;
  window.addEventListener("beforeunload", event => { if (unsaved) event.preventDefault(); });
  on("drawn", polygons => {
    const name = $("class").value.trim() || "Unclassified", same = shapes.areas.find(area => area.class === name);
    const classes = [...new Set(shapes.areas.map(area => area.class))];
    const area = { id: crypto.randomUUID ? crypto.randomUUID() : "", class: name, colour: same ? same.colour : COLOURS[classes.length % COLOURS.length], polygons };
    shapes.areas.push(area); changed(); tell("tab", "areas"); choose(area);
  });
}
