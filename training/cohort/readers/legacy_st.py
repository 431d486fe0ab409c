"""Spatial Transcriptomics before Visium (her2st and the like): a TSV of counts, a spot file, an image.

Rows of the counts are named ``XxY`` after the spot's place in the array. The spot file has the columns x, y, pixel_x,
pixel_y, and often new_x, new_y (the place as measured in the image) and selected (1: under tissue). No resolution is
stated anywhere: it is given in the config, or follows from the known distance of the spots.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stamp_deploy.errors import DataError
from stamp_deploy.tables import read_table

from .base import RawSample, Settings, grid_pitch, join, open_text


def read(settings: Settings) -> RawSample:
    """Read counts, spots and the place of the image; see docs/cohort.md for the keys.

    Raises
    ------
    DataError
        A file is not as described, or barcodes and spots do not match.
    """
    counts_path, spots_path = settings.path("counts"), settings.path("spots")
    counts, barcodes, names = read_counts(counts_path)
    table = read_table(spots_path, error=DataError)
    table.require("x", "y", "pixel_x", "pixel_y")
    fine = table.has("new_x") and table.has("new_y")
    grid_keys = ("new_x", "new_y") if fine else ("x", "y")
    rows = [i for i in range(len(table.rows)) if not table.has("selected") or table.number(i, "selected") == 1]
    positions: dict[str, tuple[float, float]] = {}
    grid, pixels = [], []
    for row in rows:
        name = f"{round(table.number(row, 'x'))}x{round(table.number(row, 'y'))}"
        if name in positions:
            raise DataError(f"the spot {name} comes twice", path=spots_path, remedy="keep one of its lines")
        pixel = (table.number(row, "pixel_x"), table.number(row, "pixel_y"))
        positions[name] = pixel
        pixels.append(pixel)
        grid.append([table.number(row, key) for key in grid_keys])
    matched, barcodes, centres = join(counts, barcodes, positions, spots_path, all_needed=False)
    mpp, source = None, ""
    pitch_um = settings.number("spot_pitch_um")
    if pitch_um is not None:
        a, b, rms = grid_pitch(np.array(grid), np.array(pixels), spots_path)
        pitch = (a + b) / 2
        mpp = pitch_um / pitch
        source = (
            f"spot pitch: {pitch_um:g} um stated, {a:.2f} and {b:.2f} px measured along the array's axes over "
            f"{len(grid)} spots (affine fit, rms {rms:.2g} px)"
        )
    return RawSample(
        counts=matched,
        names=names,
        barcodes=barcodes,
        centres=centres,
        image=settings.path("image"),
        mpp=mpp,
        mpp_source=source,
        platform="Spatial Transcriptomics",
        notes={"spots_in_counts": counts.shape[0], "spots_in_spot_file": len(rows)},
    )


def read_counts(path: Path) -> tuple[sparse.csr_array, tuple[str, ...], tuple[str, ...]]:
    """Counts [N, G], row names and gene names of a TSV whose first column is the spot.

    Raises
    ------
    DataError
        A line has another number of fields than the header, or a count is not a number.
    """
    blocks: list[sparse.csr_array] = []
    barcodes: list[str] = []
    dense: list[NDArray[np.float32]] = []
    try:
        with open_text(path) as handle:
            names = handle.readline().rstrip("\r\n").split("\t")
            corner = names[0].strip() == ""
            if corner:
                names = names[1:]
            for number_, line in enumerate(handle, 2):
                if not line.strip():
                    continue
                name, _, rest = line.rstrip("\r\n").partition("\t")
                values = np.array([v if v.strip() else "nan" for v in rest.split("\t")], np.float32)
                if not barcodes and not corner and len(values) == len(names) - 1:
                    names = names[1:]  # the header names the column of spots too
                if len(values) != len(names):
                    raise DataError(
                        f"line {number_} has {len(values)} counts for {len(names)} genes",
                        path=path,
                        remedy="export the table again: spots in rows, genes in columns, tab-separated",
                    )
                barcodes.append(name.strip())
                dense.append(values)
                if len(dense) == 512:
                    blocks.append(sparse.csr_array(np.stack(dense)))
                    dense = []
    except (OSError, UnicodeDecodeError, EOFError, ValueError) as error:
        raise DataError(f"cannot be read as a table of counts: {error}", path=path) from error
    if dense:
        blocks.append(sparse.csr_array(np.stack(dense)))
    if not blocks:
        raise DataError("holds no spots", path=path)
    return sparse.csr_array(sparse.vstack(blocks, format="csr")), tuple(barcodes), tuple(names)
