"""tissue.geojson: the tissue mask as outlines, to be reviewed and edited in QuPath and given back by --tissue-mask.

One annotation per connected piece, class "Tissue", in full-resolution pixels, counted as QuPath shows the slide (see
geojson.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid5

import numpy as np

from ..annotations import outlines
from ..errors import UsageError
from ..result import Result
from .geojson import NAMESPACE

NAME = "tissue-geojson"
NEEDS = ("shapely", "contourpy")
COLOUR = [53, 132, 228]
_DECIMALS = 2


def write(result: Result, directory: Path) -> list[Path]:
    """Write tissue.geojson.

    Raises
    ------
    UsageError
        Every tile was scored, or the result was written by a version that kept no mask.
    """
    mask, slide = result.tissue_mask, result.slide
    if mask is None:
        raise UsageError(
            "the result holds no tissue mask: every tile was scored, or an older version wrote it",
            remedy="score the slide without --all-tiles, or leave out the format tissue-geojson",
        )
    scale = np.array([slide.width / mask.shape[1], slide.height / mask.shape[0]])
    shown = np.array(slide.corner)
    features = []
    for number, piece in enumerate(outlines(mask)):
        rings = [np.asarray(ring.coords) * scale - shown for ring in (piece.exterior, *piece.interiors)]
        features.append(
            {
                "type": "Feature",
                "id": str(uuid5(NAMESPACE, f"{slide.sha256}:tissue:{number}")),
                "geometry": {"type": "Polygon", "coordinates": [ring.round(_DECIMALS).tolist() for ring in rings]},
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": "Tissue", "color": COLOUR},
                    "isLocked": False,
                },
            }
        )
    path = directory / "tissue.geojson"
    document = {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    return [path]
