// Areas over the slide: those that are kept, and the one that is being drawn.
export const shapes = { areas: [], chosen: null, open: [], hover: null };

function trace(ink, ring, at) {
  ring.forEach(([x, y], i) => ink[i ? "lineTo" : "moveTo"](at.left + x * at.kx, at.top + y * at.ky));
}
export function drawShapes(ink, at) {
  ink.lineJoin = "round";
  for (const area of shapes.areas) {
    ink.beginPath();
    for (const polygon of area.polygons) for (const ring of polygon) { trace(ink, ring, at); ink.closePath(); }
    const on = area === shapes.chosen;
    ink.lineWidth = on ? 6 : 4.5; ink.strokeStyle = "rgba(255,255,255,.85)"; ink.stroke();
    ink.lineWidth = on ? 3.5 : 2; ink.strokeStyle = `rgb(${area.colour})`; ink.stroke();
  }
  if (!shapes.open.length) return;
  ink.beginPath(); trace(ink, shapes.hover ? [...shapes.open, shapes.hover] : shapes.open, at);
  ink.lineWidth = 5; ink.strokeStyle = "rgba(255,255,255,.85)"; ink.stroke();
  ink.lineWidth = 2.5; ink.strokeStyle = "#0b57d0"; ink.stroke();
  ink.fillStyle = "#0b57d0";
  for (const [x, y] of shapes.open.length < 40 ? shapes.open : shapes.open.slice(0, 1)) ink.fillRect(at.left + x * at.kx - 3, at.top + y * at.ky - 3, 6, 6);
}
