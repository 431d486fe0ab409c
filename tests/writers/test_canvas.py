"""Text, bars and PNG files around the maps."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.result_factory import make_result

from stamp_deploy.writers import canvas
from stamp_deploy.writers.picture import Painter, blend, make_view, result_styles


def test_heat_maps_are_drawn_without_matplotlibs_figures(tmp_path: Path) -> None:
    """50 of them took 25 s of CPU that way, more than a slide's inference."""
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from pathlib import Path; from support.result_factory import make_result\n"
        "from stamp_deploy.writers import write_all\n"
        "print(len(write_all(make_result(60, 25), Path(sys.argv[1]), ['heatmaps', 'report'])))\n"
        "print(sorted({'matplotlib.figure', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.split("\n")[:2] == ["28", "[]"]


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-1.9, 1.7, ["\N{MINUS SIGN}1", "0", "1"]),
        (3.0, 3.5, ["3.0", "3.1", "3.2", "3.3", "3.4", "3.5"]),
        (-1e6, 3e6, ["\N{MINUS SIGN}1e+06", "0", "1e+06", "2e+06", "3e+06"]),
        (0.0, 2e-6, ["0", "5e\N{MINUS SIGN}07", "1e\N{MINUS SIGN}06", "1.5e\N{MINUS SIGN}06", "2e\N{MINUS SIGN}06"]),
    ],
)
def test_ticks_are_round_and_say_no_more_than_they_need(low: float, high: float, labels: list[str]) -> None:
    found = canvas.ticks(low, high)
    assert [label for _, label in found] == labels
    assert all(low - 1e-9 <= value <= high + 1e-9 for value, _ in found)


def test_text_is_cut_and_broken_to_its_room() -> None:
    assert canvas.fit("short", 14, 200) == "short"
    cut = canvas.fit("a text that is too long for its room", 14, 100)
    assert cut.endswith(" …")
    assert canvas.text_width(cut, 14) <= 100
    lines = canvas.wrap("one two three " + "x" * 80, 14, 100, 4)
    assert len(lines) == 4
    assert lines[0].startswith("one two")
    assert all(canvas.text_width(line, 14) <= 100 for line in lines)
    assert canvas.wrap("", 14, 100, 3) == [""]


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (300, 200)])
def test_png_files_hold_the_picture_and_nothing_else(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    data = canvas.png_bytes(Image.fromarray(pixels))
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.format == "PNG"
        assert image.info == {}
        assert np.array_equal(np.asarray(image), pixels)
    assert data == canvas.png_bytes(Image.fromarray(pixels))


def test_a_painter_paints_what_the_blend_is() -> None:
    """Each map is the formula of the documentation: 70 % of the colour over a pale grey slide, to a rounding."""
    from matplotlib import colormaps

    result = make_result(n_tiles=120, pathways=2)
    view = make_view(result, 300)
    painter = Painter(result, view)
    for index, style in enumerate(result_styles(result)):
        low, high = style.low, style.high
        picture = painter.paint(result.pathways[:, index], low, high)
        assert np.array_equal(picture, blend(result, view, result.pathways[:, index], low, high))
        tile = 17
        column, row = result.tile_cells[tile]
        y, x = np.flatnonzero(view.rows == row)[3], np.flatnonzero(view.columns == column)[3]
        share = float(np.clip((result.pathways[tile, index] - low) / (high - low), 0, 1))
        colour = np.array(colormaps["viridis"](share)[:3]) * 255
        grey = 90 + view.picture[y, x].mean() * 165 / 255
        assert np.abs(picture[y, x] - (0.7 * colour + 0.3 * grey)).max() <= 2


def test_bars_have_the_colours_of_the_maps() -> None:
    page = Image.new("RGB", (400, 300), "white")
    canvas.horizontal_bar(page, (20, 20, 200, 12), 0.0, 1.0)
    canvas.vertical_bar(page, (260, 20, 20, 200), 0.0, 1.0, "predicted score")
    pixels = np.asarray(page).astype(int)
    colours = canvas.bar_colours().astype(int)
    assert np.abs(pixels[26, 22] - colours[3]).max() <= 4
    assert np.abs(pixels[26, 217] - colours[252]).max() <= 4
    assert np.abs(pixels[40, 270] - colours[243]).max() <= 12
    assert np.abs(pixels[205, 270] - colours[6]).max() <= 12
