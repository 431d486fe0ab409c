// The list of slides, with the verdict on each and what became of those without a result.
import { listSlides, thumbnailUrl } from "./api.js";
import { state, tell, toast } from "./state.js";

let rows = [];
const words = row => row.state === "done" ? row.verdict : row.state;

export async function loadList() {
  const found = await listSlides();
  rows = found.slides;
  const many = found.batch;
  $("list-button").hidden = !many; $("slides").hidden = !many || !wide.matches;
  document.body.classList.toggle("listed", many);
  const kinds = [...new Set(rows.map(words))];
  $("only").replaceChildren(make("option", "All verdicts", { value: "" }), ...kinds.map(kind => make("option", `${kind} (${rows.filter(row => words(row) === kind).length})`, { value: kind })));
  show();
  return rows;
}
const wide = matchMedia("(min-width: 1081px)");
export const readable = () => rows.filter(row => row.state === "done");
export function step(by) {
  const able = readable(), at = able.findIndex(row => row.key === state.key);
  if (able.length > 1) tell("wanted", able[(at + by + able.length) % able.length].key);
}
export function show() {
  const wanted = $("search").value.toLowerCase().split(/\s+/).filter(Boolean), kind = $("only").value;
  const shown = rows.filter(row => (!kind || words(row) === kind) && wanted.every(word => `${row.name} ${row.case} ${row.key}`.toLowerCase().includes(word)));
  $("found").textContent = shown.length === rows.length ? `${rows.length} slides` : `${shown.length} of ${rows.length} slides`;
  $("rows").replaceChildren(...shown.map(row => {
    const item = make("li"), button = make("button"), text = make("span"), able = row.state === "done";
    button.classList.toggle("none", !able); button.title = row.reasons.join("; ");
    if (able) button.append(make("img", undefined, { className: "picture", alt: "", loading: "lazy", src: thumbnailUrl(row.key) })); else button.append(make("span", "", { className: "picture" }));
    text.append(make("b", row.name));
    if (row.case) text.append(make("small", "Case " + row.case));
    for (const [name, call] of row.calls) if (call) text.append(make("small", `${name}: ${call}`));
    text.append(make("span", words(row), { className: "chip " + words(row).replaceAll(" ", "-") }));
    if (row.left_out) text.append(make("small", `${row.left_out} tiles left out`));
    if (!able) text.append(make("small", row.reasons.join("; "), { className: "reason" }));
    button.append(text); button.setAttribute("aria-current", row.key === state.key);
    button.onclick = () => { if (!able) { toast(`${row.name}: ${row.reasons.join("; ") || row.state}`); return; } tell("wanted", row.key); if (!wide.matches) toggle(false); };
    item.append(button); return item;
  }));
}
export function toggle(on = $("slides").hidden) { $("slides").hidden = !on; $("list-button").setAttribute("aria-expanded", on); }
export function listenForList() {
  $("search").oninput = show; $("only").onchange = show; $("list-button").onclick = () => toggle(); $("list-close").onclick = () => toggle(false);
  $("slides").addEventListener("keydown", event => { if (event.key === "Escape" && !wide.matches) { toggle(false); $("list-button").focus(); } });
  wide.addEventListener("change", () => { if (document.body.classList.contains("listed")) toggle(wide.matches); });
}
