"""Annotations that are drawn in the viewer, kept as QuPath's GeoJSON in a folder of their own.

A result is never changed: its hashes would no longer agree. The files are called like the slides, so that the folder
can be given to ``--roi``. A file carries the hash of its slide and is refused for another one of the same name. What
the viewer does not understand, such as points or measurements of QuPath, stays in the file as it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import uuid
from pathlib import Path
from threading import Lock
from typing import Any

from ..annotations.geojson import AREAS, MAX_CLASSES, MAX_COORDINATE, class_name, features_of, load_geojson
from ..atomic import disk_errors, write_bytes_atomic
from ..errors import StampError, UsageError
from ..result import Result
from ..system.names import NAME_MAX_BYTES

MAX_ANNOTATIONS = 5000
MAX_CORNERS = 200_000
FOLDER = "annotations"
SLIDE_HASH = "slide_sha256"
"""Member of the file's collection that says which slide it is of."""
DECIMALS = 2
_COLOURS = ((220, 50, 47), (38, 110, 190), (42, 150, 90), (200, 120, 10), (130, 80, 180), (20, 150, 160))


class Conflict(StampError):
    """Somebody else saved in between."""


class SavedAnnotations:
    """The annotation files of a folder.

    Parameters
    ----------
    folder : Path
        Made when something is saved first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = Lock()

    def path(self, key: str, result: Result) -> Path:
        """The file of a result's slide."""
        name = f"{result.slide.name}.geojson"
        plain = Path(name).name == name and not name.startswith(".") and len(name.encode()) <= NAME_MAX_BYTES
        return self.folder / (name if plain else f"{key}.geojson")

    def read(self, key: str, result: Result) -> dict[str, Any]:
        """What is saved: {"revision": str, "annotations": [{"id", "class", "colour", "polygons"}]}, level-0 pixels.

        Raises
        ------
        UsageError
            The file is damaged, or of another slide.
        """
        features, revision = self._features(self.path(key, result), result)
        left, top = result.slide.corner
        shown = []
        for feature in features:
            if _is_area(feature):
                geometry, properties = feature["geometry"], feature.get("properties") or {}
                parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
                classification = properties.get("classification")
                name = class_name(classification)
                shown.append(
                    {
                        "id": str(feature.get("id") or ""),
                        "class": name,
                        "colour": _colour(classification, name),
                        "polygons": [
                            [[[x + left, y + top] for x, y, *_ in ring] for ring in polygon] for polygon in parts
                        ],
                    }
                )
        return {"revision": revision, "annotations": shown}

    def write(self, key: str, result: Result, asked: Any) -> dict[str, Any]:
        """Save annotations, whole or not at all; returns what `read` gives afterwards.

        Parameters
        ----------
        asked : JSON value
            As `read` gives it; `revision` is the one that was changed.

        Raises
        ------
        UsageError
            They are no annotations, or too many.
        Conflict
            The file has another revision by now.
        DiskError
            The file cannot be written.
        """
        path = self.path(key, result)
        wanted = _checked(asked)
        with self._lock:
            before, revision = self._features(path, result)
            if asked.get("revision") != revision:
                raise Conflict(
                    "somebody else saved annotations of this slide in between",
                    remedy="load them again, then repeat the change",
                )
            known = {str(feature.get("id")): feature for feature in before if _is_area(feature)}
            kept = [feature for feature in before if not _is_area(feature)]
            corner = result.slide.corner
            features = [*(_feature(item, known.get(item["id"]), corner) for item in wanted), *kept]
            document = {"type": "FeatureCollection", SLIDE_HASH: result.slide.sha256, "features": features}
            with disk_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
            write_bytes_atomic(path, text.encode() + b"\n")
        return self.read(key, result)

    def _features(self, path: Path, result: Result) -> tuple[list[dict[str, Any]], str]:
        """The features of a file and its revision; none and "" where there is no file."""
        if not path.is_file():
            return [], ""
        document, sha256 = load_geojson(path)
        if isinstance(document, dict) and document.get(SLIDE_HASH, result.slide.sha256) != result.slide.sha256:
            raise UsageError(
                "these annotations are of another slide of the same name",
                path=path,
                remedy="start the viewer with another folder: --annotations FOLDER",
            )
        features = list(features_of(path, document))
        for feature in features:
            if _is_area(feature):
                _check_geometry(feature["geometry"], path)
        return features, sha256


def _checked(asked: Any) -> list[dict[str, Any]]:
    items = asked.get("annotations") if isinstance(asked, dict) else None
    if not isinstance(items, list) or len(items) > MAX_ANNOTATIONS:
        raise UsageError("no list of annotations", remedy=f"send at most {MAX_ANNOTATIONS}")
    checked, corners = [], 0
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("polygons"), list) or not item["polygons"]:
            raise UsageError("an annotation has no polygons", remedy="draw it again")
        geometry = {"type": "MultiPolygon", "coordinates": item["polygons"]}
        corners += _check_geometry(geometry, None)
        name = class_name({"name": item.get("class")})
        colour = _colour({"color": item.get("colour")}, name)
        checked.append({"id": _id(item.get("id")), "class": name, "colour": colour, "polygons": item["polygons"]})
    if corners > MAX_CORNERS or len({item["class"] for item in checked}) > MAX_CLASSES:
        raise UsageError(
            f"more than {MAX_CORNERS:,} corners or {MAX_CLASSES} classes", remedy="leave some of the annotations out"
        )
    return checked


def _id(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    return text if re.fullmatch(r"[0-9a-fA-F-]{36}", text) else str(uuid.uuid4())


def _feature(item: dict[str, Any], before: dict[str, Any] | None, corner: tuple[int, int]) -> dict[str, Any]:
    """An annotation as QuPath writes it; what an earlier one of the same id held beside is kept."""
    properties = dict((before or {}).get("properties") or {})
    old = properties.get("classification")
    if not (isinstance(old, dict) and class_name(old) == item["class"]):
        properties["classification"] = {"name": item["class"], "color": item["colour"]}
    properties.setdefault("objectType", "annotation")
    left, top = corner
    polygons = [
        [[[round(x - left, DECIMALS), round(y - top, DECIMALS)] for x, y, *_ in _closed(ring)] for ring in polygon]
        for polygon in item["polygons"]
    ]
    kind, shape = ("Polygon", polygons[0]) if len(polygons) == 1 else ("MultiPolygon", polygons)
    return {
        **(before or {}),
        "type": "Feature",
        "id": item["id"],
        "geometry": {"type": kind, "coordinates": shape},
        "properties": properties,
    }


def _closed(ring: list[list[float]]) -> list[list[float]]:
    return ring if ring[0][:2] == ring[-1][:2] else [*ring, ring[0]]


def _is_area(feature: dict[str, Any]) -> bool:
    geometry, properties = feature.get("geometry"), feature.get("properties") or {}
    drawn = isinstance(properties, dict) and properties.get("objectType", "annotation") in ("annotation", "roi")
    return drawn and isinstance(geometry, dict) and geometry.get("type") in AREAS


def _check_geometry(geometry: dict[str, Any], path: Path | None) -> int:
    """How many corners a polygon has; all of them lie on some slide.

    Raises
    ------
    UsageError
        They do not.
    """
    parts = geometry.get("coordinates")
    corners = 0
    try:
        for polygon in parts if geometry["type"] == "MultiPolygon" else [parts]:  # type: ignore[union-attr]
            if not polygon:
                raise ValueError("a polygon without an outline")
            for ring in polygon:
                if len(ring) < 3:
                    raise ValueError("a ring of fewer than three corners")
                for x, y, *_ in ring:
                    if isinstance(x, bool) or isinstance(y, bool) or not all(map(math.isfinite, (x, y))):
                        raise ValueError("a corner that is no number")
                    if max(abs(x), abs(y)) > MAX_COORDINATE:
                        raise ValueError("a corner beyond any slide")
                corners += len(ring)
    except (TypeError, ValueError) as error:
        raise UsageError(f"an annotation is no polygon: {error}", path=path, remedy="draw it again") from error
    return corners


def _colour(classification: Any, name: str) -> list[int]:
    """The colour that QuPath stored, else one that belongs to the name."""
    stored = classification.get("color") if isinstance(classification, dict) else None
    if isinstance(stored, list) and len(stored) == 3 and all(isinstance(v, int) and 0 <= v < 256 for v in stored):
        return stored
    return list(_COLOURS[hashlib.sha256(name.encode()).digest()[0] % len(_COLOURS)])
