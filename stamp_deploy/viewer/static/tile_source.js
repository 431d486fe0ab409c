// The slide for OpenSeadragon: its levels as the server tells them, of which some have the file's own tiles.
import { state } from "./state.js";
import { tileUrl } from "./api.js";

export function tileSource() {
  const { key, source } = state, [width, height] = state.facts.size, levels = source.levels, last = levels.length - 1;
  const made = new OpenSeadragon.TileSource({ width, height, tileOverlap: 0, minLevel: 0, maxLevel: last, tileSize: 256, ready: true });
  const edge = (value, size) => Math.min(value, size);
  return Object.assign(made, {
    getLevelScale: level => levels[level].width / width,
    getTileWidth: level => levels[level].tile[0],
    getTileHeight: level => levels[level].tile[1],
    getNumTiles: level => new OpenSeadragon.Point(...levels[level].tiles),
    getTileAtPoint(level, point) {
      const one = levels[level], most = one.tiles;
      const x = Math.floor(point.x * one.width / one.tile[0]), y = Math.floor(point.y * width / height * one.height / one.tile[1]);
      return new OpenSeadragon.Point(Math.min(Math.max(x, 0), most[0] - 1), Math.min(Math.max(y, 0), most[1] - 1));
    },
    getTileBounds(level, x, y, isSource) {
      const one = levels[level], [w, h] = one.tile;
      const left = x * w, top = y * h, wide = edge(w, one.width - left), high = edge(h, one.height - top);
      if (isSource) return new OpenSeadragon.Rect(0, 0, wide, high);
      const kx = 1 / one.width, ky = height / width / one.height;
      return new OpenSeadragon.Rect(left * kx, top * ky, wide * kx, high * ky);
    },
    getTileUrl: (level, x, y) => tileUrl(key, source.kind, level, x, y),
    tileExists: () => true,
  });
}
