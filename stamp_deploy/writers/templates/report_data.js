// The page's data: decoded once, drawn by the maps.
const D = JSON.parse($("data").textContent);
const words = text => { const b = bytes(text); return new Uint16Array(b.buffer, 0, b.length >> 1); };
const cells = words(D.cells), count = cells.length / 2;
const palettes = Object.fromEntries(Object.entries(D.palettes).map(([name, text]) => [name, bytes(text)]));
const [x0, y0, x1, y1] = D.box, [stepX, stepY] = D.step, [columns, rows] = D.grid;
const widthUm = (x1 - x0) * D.mpp[0], heightUm = (y1 - y0) * D.mpp[1];
const cellAt = new Int32Array(columns * rows).fill(-1);
for (let i = 0; i < count; i++) cellAt[cells[2 * i + 1] * columns + cells[2 * i]] = i;
const flagCodes = D.flags && bytes(D.flags.codes), leftOut = D.flags && bytes(D.flags.leftOut);

function values(one) {                     // scores by cell, and in ascending order
  if (!one.values) {
    const codes = D.bits === 16 ? words(one.data) : bytes(one.data), top = D.bits === 16 ? 65535 : 255, [a, b] = one.quantised;
    one.values = Float32Array.from(codes, c => a + (b - a) * c / top);
    one.sorted = one.values.slice().sort();
  }
  return one.values;
}
function overlayOf(one) {                  // one pixel a grid cell, transparent where there is no tile
  if (one.overlay) return one.overlay;
  const overlay = make("canvas"); overlay.width = columns; overlay.height = rows;
  const ink = overlay.getContext("2d"), image = ink.createImageData(columns, rows);
  paintCells(image, cells, values(one), one, palettes[one.palette], leftOut);
  ink.putImageData(image, 0, 0);
  return one.overlay = overlay;
}
const overlays = [];                       // the last few are kept: 50 maps of a large slide would take much memory
function keep(one) {
  const at = overlays.indexOf(one); if (at >= 0) overlays.splice(at, 1);
  overlays.push(one); if (overlays.length > 6) overlays.shift().overlay = null;
}

// Outline: of the tissue mask where the result has one, else of the scored tiles; in level-0 pixels.
function outlinePath() {
  const path = new Path2D();
  let w = columns, h = rows, left = 0, top = 0, kx = stepX, ky = stepY, inside = (x, y) => cellAt[y * columns + x] >= 0;
  if (D.mask) {
    const bits = bytes(D.mask.bits), [a, b, c, d] = D.mask.box; [w, h] = D.mask.size;
    left = a; top = b; kx = (c - a) / w; ky = (d - b) / h;
    inside = (x, y) => { const i = y * w + x; return (bits[i >> 3] >> (i & 7)) & 1; };
  }
  const at = (x, y) => x >= 0 && y >= 0 && x < w && y < h && inside(x, y) ? 1 : 0;
  const line = (xa, ya, xb, yb) => { path.moveTo(left + xa * kx, top + ya * ky); path.lineTo(left + xb * kx, top + yb * ky); };
  for (let y = 0; y <= h; y++) for (let x = 0, from = -1; x <= w; x++) {
    const edge = x < w && at(x, y) !== at(x, y - 1);
    if (edge && from < 0) from = x; else if (!edge && from >= 0) { line(from, y, x, y); from = -1; }
  }
  for (let x = 0; x <= w; x++) for (let y = 0, from = -1; y <= h; y++) {
    const edge = y < h && at(x, y) !== at(x - 1, y);
    if (edge && from < 0) from = y; else if (!edge && from >= 0) { line(x, from, x, y); from = -1; }
  }
  return path;
}
function hatchPath() {                     // the cells that are left out, in level-0 pixels
  const path = new Path2D();
  for (let i = 0; i < count; i++) if (leftOut[i]) path.rect(cells[2 * i] * stepX, cells[2 * i + 1] * stepY, stepX, stepY);
  return path;
}
const outline = outlinePath(), hatched = leftOut && leftOut.some(v => v) ? hatchPath() : null;

let picture = null;                        // the slide, as an image
const tilePictures = new Map();            // pictures of the gallery's tiles
function tilePicture(tile, done) {
  let image = tilePictures.get(tile);
  if (!image) {
    image = new Image(); tilePictures.set(tile, image); image.src = "data:image/jpeg;base64," + D.gallery.tiles[tile][2];
  }
  if (done && !image.complete) image.addEventListener("load", done, { once: true });
  return image;
}

// Draw the slide with a map over it. view: {zoom, x, y}, the top-left corner as a share of the picture.
function drawMap(ink, wide, high, view, one, opacity, options) {
  const W = wide * view.zoom, H = high * view.zoom, kx = W / (x1 - x0), ky = H / (y1 - y0);
  const left = -view.x * W - x0 * kx, top = -view.y * H - y0 * ky;   // where level-0 pixel (0, 0) lies
  ink.setTransform(1, 0, 0, 1, 0, 0); ink.globalAlpha = 1;
  ink.fillStyle = "#fff"; ink.fillRect(0, 0, wide, high);
  ink.imageSmoothingEnabled = true; ink.imageSmoothingQuality = "high";
  ink.drawImage(picture, left + x0 * kx, top + y0 * ky, W, H);
  if (options.tiles) for (const tile of options.tiles) {             // sharp where the gallery has the tile
    const image = tilePictures.get(tile), [x, y] = D.gallery.tiles[tile];
    if (image && image.complete && D.span[0] * kx > 40) ink.drawImage(image, left + x * kx, top + y * ky, D.span[0] * kx, D.span[1] * ky);
  }
  if (one) {
    ink.imageSmoothingEnabled = false; ink.globalAlpha = strength(one, opacity);
    ink.drawImage(overlayOf(one), left, top, columns * stepX * kx, rows * stepY * ky); keep(one);
    ink.globalAlpha = 1;
    if (hatched && opacity > 0) {
      ink.save(); ink.setTransform(kx, 0, 0, ky, left, top); ink.clip(hatched); ink.setTransform(1, 0, 0, 1, 0, 0);
      const pattern = ink.createPattern(hatchTile, "repeat"); pattern.setTransform(new DOMMatrix([wide / 1300, 0, 0, wide / 1300, 0, 0]));
      ink.imageSmoothingEnabled = true; ink.fillStyle = pattern; ink.fillRect(0, 0, wide, high); ink.restore();
    }
  }
  if (options.outline) {
    const path = new Path2D(); path.addPath(outline, new DOMMatrix([kx, 0, 0, ky, left, top]));
    const thick = Math.max(1, wide / 1000);
    ink.lineWidth = 3.4 * thick; ink.strokeStyle = "rgba(255,255,255,.8)"; ink.stroke(path);
    ink.lineWidth = 1.7 * thick; ink.strokeStyle = "#1d2327"; ink.stroke(path);
  }
  if (options.ring) {
    const [x, y] = options.ring;
    for (const [width, colour] of [[7, "#fff"], [3.5, "#0b57d0"]]) {
      ink.lineWidth = width; ink.strokeStyle = colour; ink.strokeRect(left + x * kx - 2, top + y * ky - 2, D.span[0] * kx + 4, D.span[1] * ky + 4);
    }
  }
}
const scaleLength = zoom => roundLength(widthUm / zoom / 4);   // at most a quarter of what is seen
const drawBar = (canvas, one, opacity) => paintBar(canvas, one, palettes[one.palette], opacity);
