"""What a comparison leaves: comparison.json, agreement.csv, and a map of the difference per pathway."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from ..atomic import staged_directory, write_json_atomic
from ..map_style import DIVERGING, MapStyle, signed
from ..pathway_names import display_name
from ..result import Result
from ..writers.heatmaps import draw
from ..writers.names import safe_file_names
from ..writers.picture import Painter, make_view
from .agreement import Agreement
from .comparison import Comparison


@dataclass(frozen=True)
class DifferenceStyle(MapStyle):
    """How the map of a difference is drawn: one symmetric range for all pathways, white where both agree."""

    @property
    def span(self) -> str:
        """What the colours span, in words."""
        return f"red: the second is higher; colours span {signed(self.low, 3)} to {signed(self.high, 3)} on all maps"


def write_comparison(comparison: Comparison, out: Path, *, overwrite: bool = False) -> None:
    """Write the folder of a comparison, whole or not at all.

    Raises
    ------
    UsageError
        `out` exists.
    DiskError
        It cannot be written.
    """
    with staged_directory(out, overwrite=overwrite, hashes=True) as staging:
        write_json_atomic(staging / "comparison.json", comparison.to_dict())
        with (staging / "agreement.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, [field.name for field in fields(Agreement)])
            table.writeheader()
            table.writerows(map(asdict, comparison.agreements))
        _write_maps(comparison, staging / "difference")


def _write_maps(comparison: Comparison, folder: Path) -> None:
    from ..writers.canvas import png_bytes

    folder.mkdir()
    shown = _matched_part(comparison)
    view = make_view(shown)
    painter = Painter(shown, view)
    reach = max(max(abs(item.low), abs(item.high)) for item in comparison.agreements) or 1.0
    names = [item.name for item in comparison.agreements]
    for index, (item, stem) in enumerate(zip(comparison.agreements, safe_file_names(names), strict=True)):
        picture = draw(shown, view, _style(index, item, reach, comparison.unit), painter)
        (folder / f"{stem}.png").write_bytes(png_bytes(picture))


def _matched_part(comparison: Comparison) -> Result:
    """The first result with its matched tiles alone, and the differences for scores."""
    one, index = comparison.one, comparison.tiles.first
    return replace(
        one,
        tiles=replace(one.tiles, ok=len(index)),
        coords=one.coords[index],
        embedding=one.embedding[index],
        tissue_fraction=one.tissue_fraction[index],
        pathways=comparison.differences.astype("float32"),
        pathway_names=tuple(item.name for item in comparison.agreements),
        heads=(),
        trust=None,
        validation=None,
        pathways_global=None,
        summaries=(),
        gallery=None,
    )


def _style(index: int, item: Agreement, reach: float, unit: str) -> DifferenceStyle:
    r = "not defined" if item.pearson_r is None else signed(item.pearson_r, 3)
    ccc = "not defined" if item.ccc is None else signed(item.ccc, 3)
    return DifferenceStyle(
        index=index,
        name=item.name,
        label=f"{display_name(item.name)}: second minus first",
        status="not measured",
        r=None,
        evidence=(
            f"bias {signed(item.bias, 3)}, limits of agreement {signed(item.low, 3)} to {signed(item.high, 3)}, "
            f"Pearson r {r}, Lin's CCC {ccc}, {item.pairs:,} tiles"
        ),
        scale=None,
        low=-reach,
        high=reach,
        palette=DIVERGING,
        unit=f"difference, {unit}",
    )
