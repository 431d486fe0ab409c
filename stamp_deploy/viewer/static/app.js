// The viewer's page: opens a slide and wires its parts together.
import { cellsOf, factsOf, sourceOf } from "./api.js";
import { hasUnsaved, listenForAreas, loadAreas } from "./areas.js";
import { listenForDetails } from "./details.js";
import { listenForDrawing, setDrawing, drawing } from "./drawing.js";
import { listenForKeys } from "./keyboard.js";
import { later, listenForLinks, numberOf, readLink } from "./link.js";
import { listenForList, loadList, readable, show } from "./slides.js";
import { forget } from "./overlay.js";
import { goHome, lookAt, Pane, panes, seesAll } from "./pane.js";
import { on, state, tell, toast } from "./state.js";

const CHECK_AGAIN_MS = 1000;
const failed = error => { toast(error.message); };
let asking = false;

function tellSource() {
  const { state: what, words } = state.source, chip = $("source"), names = { scored: "The scored slide", checking: "Checking the file", refused: "Not the scored slide", absent: "Picture only" };
  chip.textContent = names[what]; chip.className = "chip " + what; chip.title = words; chip.hidden = false;
  $("source-words").textContent = words; $("source-words").hidden = what === "scored" || what === "checking";
  document.body.dataset.source = what;
}
async function lookAtSource() {              // whether the slide's file is the scored one, and still the same
  if (asking || !state.key) return;
  asking = true;
  try {
    const key = state.key, source = await sourceOf(key);
    if (key !== state.key) return;
    const other = !state.source || state.source.kind !== source.kind;
    state.source = source; tellSource();
    if (other) panes.forEach(pane => { if (pane.shown) pane.open(); });
    if (source.state === "checking") setTimeout(lookAtSource, CHECK_AGAIN_MS);
  } catch (error) { failed(error); } finally { asking = false; }
}
async function openSlide(key, link = {}) {
  if (hasUnsaved() && !confirm("The areas of this slide are not saved. Leave them?")) return;
  delete document.body.dataset.ready;
  let facts, source, cells;
  try { [facts, source, cells] = await Promise.all([factsOf(key), sourceOf(key), cellsOf(key)]); } catch (error) { failed(error); return; }
  const [columns, rows] = facts.grid;
  const keptMaps = link.maps && link.maps.length ? link.maps : panes.filter(pane => pane.shown && state.facts).map(pane => pane.one ? pane.one.name : "none");
  forget();
  Object.assign(state, { key, facts, source, cells, ring: null, cellAt: new Int32Array(columns * rows).fill(-1), flags: facts.flags && bytes(facts.flags.codes), leftOut: null });
  const gone = facts.flags && bytes(facts.flags.leftOut); if (gone && gone.some(v => v)) state.leftOut = gone;
  for (let i = 0; i < cells.length / 2; i++) state.cellAt[cells[2 * i + 1] * columns + cells[2 * i]] = i;
  apply(link);
  if (!panes.length) { for (const number of [0, 1]) { const pane = new Pane(number); listenForDrawing(pane); } panes[1].node.hidden = true; }
  panes.forEach(pane => pane.fill());
  setTwo(keptMaps.length > 1 || panes[1].shown, false);
  tell("slide"); tellSource(); show(); loadAreas();
  const opened = new Promise(done => panes[0].viewer.addOnceHandler("open", done));
  panes.forEach(pane => { if (pane.shown) pane.open(); });
  const wanted = panes.map((_, i) => keptMaps[i] === undefined ? (facts.layers.length ? Math.min(i, facts.layers.length - 1) : -1) : numberOf(keptMaps[i]));
  await Promise.all([opened, ...panes.map((pane, i) => pane.shown ? pane.choose(wanted[i]) : null)]);
  panes[1].index = panes[1].shown ? panes[1].index : wanted[1];
  if (link.at) lookAt(link.at);
  document.body.dataset.ready = "yes"; later();
  if (source.state === "checking") setTimeout(lookAtSource, CHECK_AGAIN_MS);
}
function apply(link) {
  if (link.opacity !== null && link.opacity !== undefined) state.opacity = link.opacity / 100;
  else if (!panes.length) state.opacity = state.facts.opacity;
  state.from = link.from || (link.maps && link.maps.length ? 0 : state.from);
}
function setTwo(two, open = true) {
  const second = panes[1], change = second.shown !== two, whole = seesAll();
  second.node.hidden = !two; $("panes").classList.toggle("two", two); $("two").setAttribute("aria-pressed", two);
  if (change && whole) requestAnimationFrame(() => goHome(true));
  if (!change || !two || !open) { later(); return; }
  second.open(); second.choose(Math.min(second.index < 0 ? panes[0].index + 1 : second.index, state.facts.layers.length - 1));
}
async function follow(link) {                // a link that was put into the address of the open page
  if (link.key && link.key !== state.key) { openSlide(link.key, link); return; }
  apply(link); tell("look");
  if (link.maps.length) { setTwo(link.maps.length > 1); await Promise.all(link.maps.slice(0, 2).map((name, i) => panes[i].choose(numberOf(name)))); }
  if (link.at) lookAt(link.at);
}

listenForList(); listenForDetails(); listenForAreas(); listenForKeys(); listenForLinks(follow);
on("wanted", key => { if (key !== state.key) openSlide(key); });
on("failed", failed);
on("tile-failed", lookAtSource);
on("opened", pane => { if (pane !== panes[0]) panes[0].lead(); });
window.addEventListener("focus", lookAtSource);
$("two").onclick = () => setTwo(!panes[1].shown);
$("draw").onclick = () => setDrawing(!drawing());
try {
  const link = readLink();
  await loadList();
  const able = readable(), first = able.find(row => row.key === link.key) || able[0];
  if (first) await openSlide(first.key, link);
  else { $("name").textContent = "No result to show"; document.body.dataset.ready = "none"; }
} catch (error) { $("name").textContent = "The viewer cannot show this"; failed(error); }
