// What is seen, as the part of the address behind "#": slide, place, maps, opacity. It can be sent to others and opened again.
import { panes, viewed } from "./pane.js";
import { on, state, toast } from "./state.js";

let timer = 0, silent = false;
const nameOf = pane => pane.one ? pane.one.name : "none";

export function readLink() {
  const given = new URLSearchParams(location.hash.slice(1)), numbers = (given.get("at") || "").split(",").map(Number);
  const percent = name => given.has(name) && given.get(name) !== "" && Number.isFinite(+given.get(name)) ? Math.min(100, Math.max(0, +given.get(name))) : null;
  const at = numbers.length === 3 && numbers.every(Number.isFinite) && numbers[2] > 0 ? { x: numbers[0], y: numbers[1], scale: numbers[2] } : null;
  return { key: given.get("slide"), at, maps: given.getAll("map"), opacity: percent("opacity"), from: percent("from") };
}
export const numberOf = name => name === "none" ? -1 : state.facts.layers.findIndex(one => one.name === name);

function write() {
  if (!state.facts || !panes[0].item) return;
  const { x, y, scale } = viewed(), given = new URLSearchParams({ slide: state.key, at: [x.toFixed(0), y.toFixed(0), scale.toPrecision(4)].join(",") });
  for (const pane of panes) if (pane.shown) given.append("map", nameOf(pane));
  given.set("opacity", Math.round(100 * state.opacity)); if (state.from) given.set("from", state.from);
  silent = true; history.replaceState(null, "", "#" + given); silent = false;
}
export const later = () => { clearTimeout(timer); timer = setTimeout(write, 150); };
export async function copyLink() {
  write();
  try { await navigator.clipboard.writeText(location.href); toast("The link is copied. It opens for those who may reach this viewer, while it runs."); }
  catch { toast("The browser does not allow copying: take the address of this page."); }
}
export function listenForLinks(opened) {
  for (const name of ["moved", "map", "look"]) on(name, later);
  window.addEventListener("hashchange", () => { if (!silent) opened(readLink()); });
  $("link").onclick = copyLink;
}
