// What the page asks of the server. All addresses start at the page's own, which holds the token.
const base = new URL(".", location.href);
const of = (key, ...rest) => new URL(["api", "slides", key, ...rest].map(encodeURIComponent).join("/"), base).href;

async function asked(url, options) {
  const answer = await fetch(url, options).catch(() => { throw new Error("The viewer does not answer. Is `stamp-deploy view` still running?"); });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw Object.assign(new Error([told.error || "The viewer failed", told.remedy].filter(Boolean).join(": ")), { status: answer.status });
}
const json = async (url, options) => (await asked(url, options)).json();
const binary = async url => (await asked(url)).arrayBuffer();
const sent = (method, value) => ({ method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });

export const listSlides = () => json(new URL("api/slides", base).href);
export const factsOf = key => json(of(key));
export const sourceOf = key => json(of(key, "source"));
export const cellsOf = async key => new Uint32Array(await binary(of(key, "cells")));
export const valuesOf = async (key, number) => new Float32Array(await binary(of(key, "values", number)));
export const tileUrl = (key, kind, level, x, y) => of(key, "tiles", kind, level, x, y + ".jpg");
export const galleryUrl = (key, tile) => of(key, "gallery", tile);
export const thumbnailUrl = key => of(key, "thumbnail");
export const exportUrl = key => of(key, "annotations.geojson");
export const figuresOf = (key, polygons) => json(of(key, "region"), sent("POST", { polygons }));
export const annotationsOf = key => json(of(key, "annotations"));
export const saveAnnotations = (key, value) => json(of(key, "annotations"), sent("PUT", value));
