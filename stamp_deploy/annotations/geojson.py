"""Annotations of QuPath: polygons by class, read out of a GeoJSON file in level-0 pixels.

QuPath writes a FeatureCollection, a list of features or one feature; ``properties.classification`` has a name, and
classes whose name ends in "*" are to be ignored (qupath.lib.objects.classes.PathClassTools). A file may come from
anywhere: its size, depth, numbers and shapes are checked, and nothing of it but class names is ever written. Names of
annotations can hold patients' names and are not read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ..errors import UsageError
from ..system.files import refuse_special
from ..system.names import printable

if TYPE_CHECKING:
    from shapely import Geometry

MAX_BYTES = 256 << 20
MAX_VERTICES = 2_000_000
MAX_CLASSES = 64
MAX_NAME_CHARS = 64
MAX_COORDINATE = 1e8
NO_CLASS = "Unclassified"
_EXPORT = "export it again from QuPath: File, Export objects as GeoJSON, as a FeatureCollection"
AREAS = ("Polygon", "MultiPolygon")
_NOT_DRAWN = ("tile", "detection", "cell")
"""Objects that QuPath or stamp-deploy made by the thousand: no annotations."""


@dataclass(frozen=True, eq=False)
class Annotations:
    """Areas by class.

    Attributes
    ----------
    areas : dict of str to shapely geometry
        Per class the union of its polygons, level-0 pixels, cut to the slide. Classes to be ignored are cut out of all.
    sha256 : str
        Hash of the file.
    polygons, repaired, skipped : int
        Polygons read; those that crossed themselves and were repaired; objects that are no area and were passed over.
    ignored : tuple of str
        Classes that were cut out.
    """

    areas: dict[str, Geometry]
    sha256: str
    polygons: int
    repaired: int
    skipped: int
    ignored: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """What the record of a run says about the file: neither its name nor its place."""
        return {
            "sha256": self.sha256,
            "classes": list(self.areas),
            "polygons": self.polygons,
            "repaired": self.repaired,
            "skipped": self.skipped,
            "ignored_classes": list(self.ignored),
        }


def read_annotations(path: Path, width: int, height: int, corner: tuple[int, int] = (0, 0)) -> Annotations:
    """Read the polygons of a GeoJSON file.

    Parameters
    ----------
    path : Path
    width, height : int
        Size of level 0, pixels.
    corner : (int, int)
        What the file counts from, level-0 pixels: QuPath shows Leica SCN and MIRAX as the box that was scanned.

    Raises
    ------
    UsageError
        The file is no GeoJSON, holds no area, or none that lies on the slide.
    """
    import shapely

    document, sha256 = load_geojson(path)
    by_class: dict[str, list[Geometry]] = {}
    repaired = skipped = polygons = vertices = 0
    for number, feature in enumerate(features_of(path, document), 1):
        geometry, name = _geometry_of(path, number, feature)
        if geometry is None:
            skipped += 1
            continue
        vertices += _check_coordinates(path, number, geometry["coordinates"])
        if vertices > MAX_VERTICES:
            _refuse(path, f"it has more than {MAX_VERTICES:,} corners", "simplify the annotations in QuPath")
        area = _area(path, number, geometry)
        if not area.is_valid:
            area = shapely.union_all(
                [part for part in shapely.get_parts(shapely.make_valid(area)) if part.geom_type in AREAS]
            )
            repaired += 1
        polygons += len(shapely.get_parts(area))
        by_class.setdefault(name, []).append(area)
        if len(by_class) > MAX_CLASSES:
            _refuse(path, f"it has more than {MAX_CLASSES} classes", "give a class to each annotation, not a name")
    if not by_class:
        _refuse(path, "it holds no annotation that has an area", "draw an area around what is meant, and export it")
    slide = shapely.box(0, 0, width, height)
    joined = {
        name: shapely.intersection(shapely.transform(shapely.union_all(areas), lambda xy: xy + corner), slide)
        for name, areas in by_class.items()
    }
    ignored = tuple(name for name in joined if name.endswith("*"))
    cut_out = shapely.union_all([joined[name] for name in ignored])
    kept = {name: shapely.difference(area, cut_out) for name, area in joined.items() if name not in ignored}
    kept = {name: area for name, area in sorted(kept.items()) if area.area > 0}
    if not kept:
        _refuse(
            path,
            f"no annotation of it lies on the slide of {width} x {height} px",
            "coordinates must be level-0 pixels of this slide, not microns; export them from this slide",
        )
    return Annotations(kept, sha256, polygons, repaired, skipped, ignored)


def load_geojson(path: Path) -> tuple[Any, str]:
    """The content of a GeoJSON file, and its SHA-256.

    Raises
    ------
    UsageError
        It cannot be read, is too large, or is no JSON.
    """
    refuse_special(path, UsageError)
    try:
        if path.stat().st_size > MAX_BYTES:
            _refuse(path, f"it is larger than {MAX_BYTES >> 20} MiB", "export the annotations alone, no detections")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", path=path, remedy="name a readable file") from error
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_no_number), hashlib.sha256(data).hexdigest()
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else "it is no JSON in UTF-8"
        raise UsageError(why, path=path, remedy=_EXPORT) from error


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def features_of(path: Path, document: Any) -> Iterator[dict[str, Any]]:
    """The features of any of the forms that QuPath writes.

    Raises
    ------
    UsageError
        It is none of them.
    """
    found = document
    if isinstance(document, dict):
        kind = document.get("type")
        if kind == "FeatureCollection":
            found = document.get("features")
        elif kind == "Feature":
            found = [document]
        elif kind in AREAS:
            found = [{"type": "Feature", "geometry": document, "properties": {}}]
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        _refuse(path, "it is no GeoJSON: no list of features", _EXPORT)
    yield from found


def _geometry_of(path: Path, number: int, feature: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The geometry of a feature, None where it is no annotated area, and its class."""
    geometry, properties = feature.get("geometry"), feature.get("properties") or {}
    if feature.get("type") != "Feature" or not isinstance(properties, dict):
        _refuse(path, f"object {number} is no feature", _EXPORT)
    if geometry is None or properties.get("objectType") in _NOT_DRAWN:
        return None, ""
    if not isinstance(geometry, dict) or not isinstance(geometry.get("type"), str):
        _refuse(path, f"object {number} has no geometry", _EXPORT)
    if geometry["type"] not in AREAS:
        return None, ""
    return {"coordinates": [], **geometry}, class_name(properties.get("classification"))


def class_name(value: Any) -> str:
    """The name of a classification, cleaned: one line, no control characters, at most `MAX_NAME_CHARS`."""
    if isinstance(value, dict):
        value = value.get("name") or value.get("names")
    if isinstance(value, list):
        value = ": ".join(part for part in value if isinstance(part, str))
    name = printable(" ".join(value.split())) if isinstance(value, str) else ""
    return name[:MAX_NAME_CHARS] or NO_CLASS


def _check_coordinates(path: Path, number: int, value: Any) -> int:
    """How many corners there are; all are pairs of finite numbers."""
    stack, corners = [value], 0
    while stack:
        item = stack.pop()
        if not isinstance(item, list):
            _refuse(path, f"object {number} has coordinates that are no lists of numbers", _EXPORT)
        if item and all(isinstance(part, int | float) and not isinstance(part, bool) for part in item):
            if len(item) < 2 or not all(math.isfinite(part) and abs(part) < MAX_COORDINATE for part in item[:2]):
                _refuse(path, f"object {number} has coordinates that are no pixels of a slide", _EXPORT)
            corners += 1
        else:
            stack.extend(item)
    return corners


def _area(path: Path, number: int, geometry: dict[str, Any]) -> Geometry:
    from shapely import GEOSException, MultiPolygon, Polygon

    parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    try:
        polygons = []
        for part in parts:
            outline, *holes = (np.array([corner[:2] for corner in ring], np.float64) for ring in part)
            polygons.append(Polygon(outline, holes))
        return polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)
    except (ValueError, TypeError, IndexError, GEOSException) as error:
        raise UsageError(f"object {number} is no polygon", path=path, remedy=_EXPORT) from error


def _refuse(path: Path, cause: str, remedy: str) -> NoReturn:
    raise UsageError(cause, path=path, remedy=remedy)
