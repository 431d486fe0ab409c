"""Space Ranger output (Visium, CytAssist): a count matrix and ``spatial/``, with the full-resolution image beside it.

The resolution follows from the array: spots of Visium are 100 um apart, in rows 86.6 um apart, and the positions give
their pixels. The spot diameter in scalefactors_json.json is no measure of length (it is of a notional spot whose size
differs between versions), so it is not used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from stamp_deploy.errors import DataError
from stamp_deploy.tables import Table, read_table

from .base import RawSample, Settings, grid_pitch, join
from .tenx import find_matrix, read_matrix

PITCH_UM = 100.0
_HEADER = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
_SMALL = {"hires": "tissue_hires_image.png", "lowres": "tissue_lowres_image.png"}


def read(settings: Settings) -> RawSample:
    """Read the spots under tissue; see docs/cohort.md for the keys.

    Raises
    ------
    DataError
        A file is missing or damaged, barcodes do not match, or no image is named.
    """
    root = settings.path("folder")
    spatial = root / "spatial"
    matrix = settings.optional_path("counts") or find_matrix(root, "filtered_feature_bc_matrix")
    counts, barcodes, names, ids = read_matrix(matrix)
    table = _positions(spatial)
    grid, pixels, positions = [], [], {}
    inside: set[str] = set()
    for i, row in enumerate(table.rows):
        barcode = row["barcode"]
        if barcode in positions:
            raise table.refuse(f"the barcode {barcode} comes twice", "export it again")
        positions[barcode] = (table.number(i, "pxl_col_in_fullres"), table.number(i, "pxl_row_in_fullres"))
        pixels.append(positions[barcode])
        grid.append([table.number(i, "array_row") * np.sqrt(3) / 2, table.number(i, "array_col") / 2])
        if table.number(i, "in_tissue") == 1:
            inside.add(barcode)
    a, b, rms = grid_pitch(np.array(grid), np.array(pixels), table.path)
    mpp_full = PITCH_UM / ((a + b) / 2)
    source = (
        f"array pitch: {PITCH_UM:g} um is {a:.3f} and {b:.3f} px along the array's axes over {len(grid)} spots "
        f"(affine fit, rms {rms:.2g} px)"
    )
    counts, kept, centres = join(counts, barcodes, positions, table.path, all_needed=True)
    under = [i for i, barcode in enumerate(kept) if barcode in inside]
    if not under:
        raise DataError("no spot of the counts is under tissue", path=table.path)
    image, factor, level = _image(settings, root, spatial)
    if factor != 1.0:
        source += f"; {level} image, scale factor {factor:g}"
    return RawSample(
        counts=counts[under],
        names=names,
        ids=ids,
        barcodes=tuple(kept[i] for i in under),
        centres=centres[under] * factor,
        image=image,
        mpp=mpp_full / factor,
        mpp_source=source,
        platform="Visium",
        image_size=full_size(spatial) if level == "full" else None,
        notes={"spots_under_tissue": len(inside), "image_level": level},
    )


def _positions(spatial: Path) -> Table:
    """The table of positions: with a header since Space Ranger 2, without one before."""
    for name in ("tissue_positions.csv", "tissue_positions_list.csv"):
        for path in (spatial / name, spatial / f"{name}.gz"):
            if path.is_file():
                table = read_table(path, default_columns=_HEADER, error=DataError)
                table.require(*_HEADER)
                return table
    raise DataError(
        "holds no tissue_positions.csv",
        path=spatial,
        remedy='copy the folder spatial/ of Space Ranger; bins of Visium HD have format = "visium-hd"',
    )


def _image(settings: Settings, root: Path, spatial: Path) -> tuple[Path, float, str]:
    """The image to cut tiles from, the pixels of it per full-resolution pixel, and which it is."""
    level = settings.text("image_level", "full")
    if level == "full":
        image = settings.optional_path("image")
        if image is None:
            raise DataError(
                f"the sample {settings.sample} names no full-resolution image (it is not in Space Ranger's results)",
                path=root,
                remedy='add image = "FILE" (the image given to spaceranger --image); '
                'image_level = "hires" or "lowres" takes the small picture, for coarse models only',
            )
        return image, 1.0, level
    if level not in _SMALL:
        raise DataError(f"image_level = {level!r} does not exist", remedy='use "full", "hires" or "lowres"')
    factors = scale_factors(spatial / "scalefactors_json.json")
    key = f"tissue_{level}_scalef"
    factor = factors.get(key)
    if not isinstance(factor, int | float) or not 0 < factor <= 1:
        raise DataError(f"states no {key}", path=spatial / "scalefactors_json.json")
    image = settings.optional_path("image") or spatial / _SMALL[level]
    if not image.is_file():
        raise DataError("does not exist", path=image, remedy="copy it from spatial/, or use another level")
    return image, float(factor), level


def full_size(spatial: Path) -> tuple[float, float] | None:
    """The size of the full-resolution image that the small pictures imply; None where there are none."""
    from PIL import Image

    factors = scale_factors(spatial / "scalefactors_json.json")
    for level in ("hires", "lowres"):
        factor, path = factors.get(f"tissue_{level}_scalef"), spatial / _SMALL[level]
        if isinstance(factor, int | float) and factor > 0 and path.is_file():
            with Image.open(path) as picture:
                return picture.width / factor, picture.height / factor
    return None


def scale_factors(path: Path) -> dict[str, Any]:
    """The numbers of scalefactors_json.json."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read as JSON: {error}", path=path) from error
    return values if isinstance(values, dict) else {}
