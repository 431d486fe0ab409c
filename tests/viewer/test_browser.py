"""The viewer's page in headless Chromium: pan, zoom, maps in their places, areas, links; quiet, and off no host."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.bundle_factory import make_bundle
from support.chromium import CONTRAST, UNNAMED
from support.result_factory import full_result, stored
from support.slide_factory import texture, write_slide
from support.viewer_client import running, score

from stamp_deploy.map_style import colour_table
from stamp_deploy.result import Result
from stamp_deploy.result_files import read_result
from stamp_deploy.viewer import slide_source
from stamp_deploy.writers.picture import result_styles

WAIT_MS = 60_000
PLACES = "() => [...document.querySelectorAll('.stage')].map(stage => stage.dataset.place || '').join(', ')"
PAINTED = """
frames => new Promise(done => {
  const next = left => left ? requestAnimationFrame(() => next(left - 1)) : done();
  next(frames);
})"""


class Page:
    """The viewer, open in a browser, with everything that it complained of or asked for."""

    def __init__(self, browser: Any, url: str, width: int = 1400, height: int = 860, **options: Any) -> None:
        self.url = url
        self.context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_selector("body[data-ready=yes]")
        self.drawn()

    def drawn(self) -> None:
        """Wait until all tiles of what is seen are there, and nothing moves."""
        self.page.wait_for_selector(".stage[data-loaded=yes]")
        before = None
        while (now := self.page.evaluate(PLACES)) != before:
            before = now
            self.painted(10)

    def painted(self, frames: int = 2) -> None:
        """Wait until the page has been painted so many times: what was asked for before is on the screen then.

        Frames are counted and no time is measured, since a loaded machine paints late.
        """
        self.page.evaluate(PAINTED, frames)

    def choose(self, layer: int, label: str) -> None:
        """Choose a map and wait until it is shown."""
        self.page.select_option("select[aria-label=Map]", str(layer))
        self.page.locator(".evidence b", has_text=label).first.wait_for()
        self.painted()

    def place(self, pane: int = 0) -> tuple[float, ...]:
        """(left, top, kx, ky): where level-0 pixel (0, 0) lies in the stage, and screen pixels per level-0 pixel."""
        text = self.page.locator(".stage").nth(pane).get_attribute("data-place") or "0 0 0 0"
        return tuple(map(float, text.split()))

    def link(self) -> str:
        """The page's address, once it tells the place that is seen: it follows a moment later."""
        left, top, kx, ky = self.place()
        box = self.stage()
        centre = (box["width"] / 2 - 1 - left) / kx, (box["height"] / 2 - 1 - top) / ky  # without the border
        for _ in range(600):
            url = str(self.page.url)
            (at,) = parse_qs(url.partition("#")[2]).get("at", ["0,0,0"])
            x, y, scale = map(float, at.split(","))
            if (x, y) == pytest.approx(centre, abs=1) and scale == pytest.approx(1 / kx, rel=0.001):
                return url
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{url} does not tell {centre}, {1 / kx}")

    def stage(self, pane: int = 0) -> dict[str, float]:
        box: dict[str, float] = self.page.locator(".stage").nth(pane).bounding_box()
        return box

    def on_screen(self, x: float, y: float, pane: int = 0) -> tuple[float, float]:
        """Where a level-0 pixel lies in the window."""
        left, top, kx, ky = self.place(pane)
        box = self.stage(pane)
        return box["x"] + 1 + left + x * kx, box["y"] + 1 + top + y * ky

    def pixels(self, pane: int = 0) -> NDArray[np.int64]:
        """What the stage shows."""
        picture = self.page.locator(".stage").nth(pane).screenshot()
        return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(np.int64)

    def at(self, x: float, y: float, pane: int = 0) -> NDArray[np.int64]:
        """The colour on the screen over a level-0 pixel: the mean of 3 x 3 pixels."""
        left, top, kx, ky = self.place(pane)
        column, row = round(1 + left + x * kx), round(1 + top + y * ky)
        return np.asarray(self.pixels(pane)[row - 1 : row + 2, column - 1 : column + 2].mean(axis=(0, 1)))

    def close(self) -> None:
        """Nothing was complained of, and nobody else was asked."""
        origin = self.url.split("/")[2]
        others = [url for url in self.requests if not url.startswith("data:") and url.split("/")[2] != origin]
        complaints = list(self.complaints)
        self.context.close()
        assert complaints == []
        assert others == []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 2000 x 1500 px on glass, scored, with a bundle that has heads."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "slides").mkdir()
    rgb = np.full((1500, 2000, 3), 245, np.uint8)
    rgb[200:1300, 300:1700] = texture(1100, 1400, seed=3) // 2 + 60
    rgb[600:800, 900:1100] = (200, 30, 30)
    slide = write_slide(folder / "slides" / "a.svs", rgb, tile=256, levels=(4,), coding="420")
    score(slide, make_bundle(folder / "bundle", tile_px=64), folder / "out" / "a")
    full = full_result()
    stored(replace(full, slide=replace(full.slide, name="b.svs")), folder / "out" / "b")
    failed = {"name": "bad.svs", "key": "bad", "case_id": "", "state": "failed", "reason": "is no slide"}
    (folder / "out" / "batch.json").write_text(json.dumps({"slides": [failed]}))
    return folder


@pytest.fixture
def opened(browser: Any, world: Path) -> Iterator[Page]:
    with running(world / "out", (world / "slides",)) as client:
        page = Page(browser, client.server.url + "#slide=a")
        yield page
        page.close()


def result_of(world: Path, key: str = "a") -> Result:
    return read_result(world / "out" / key)


def expected_colour(result: Result, tile: int, layer: int) -> NDArray[np.float64]:
    """A tile's colour by the report's rule."""
    style = result_styles(result)[layer]
    shown = float(style.shown(result.pathways[tile : tile + 1, style.index])[0])
    code = round(min(max((shown - style.low) / (style.high - style.low), 0), 1) * 255)
    return colour_table(style.palette)[code].astype(np.float64)


def test_the_slide_is_shown_in_its_place(opened: Page) -> None:
    """A red square of the slide lies where its pixels say, at every zoom."""
    opened.page.select_option("select[aria-label=Map]", "-1")
    for _ in range(3):
        red = opened.at(1000, 700)
        assert red[0] > red[1] + 90
        edge = opened.at(880, 700), opened.at(920, 700)
        assert edge[0][0] < edge[0][1] + 90 or edge[0][1] > 80
        assert edge[1][0] > edge[1][1] + 90
        opened.page.mouse.move(*opened.on_screen(1000, 700))
        opened.page.mouse.wheel(0, -300)
        opened.drawn()


def test_maps_lie_over_their_tiles_in_the_reports_colours(opened: Page, world: Path) -> None:
    result = result_of(world)
    opened.page.locator("#opacity").fill("100")
    span = result.grid.span_x
    for layer in (0, 2):
        opened.choose(layer, result_styles(result)[layer].label)
        for tile in (0, len(result.coords) // 2, len(result.coords) - 1):
            x, y = result.coords[tile] + span / 2
            assert np.abs(opened.at(x, y) - expected_colour(result, tile, layer)).max() <= 2, (layer, tile)


def test_map_cells_have_sharp_edges(opened: Page, world: Path) -> None:
    """Image smoothing is off: across the border of two cells there are two colours and no third."""
    result = result_of(world)
    opened.page.locator("#opacity").fill("100")
    cells = {tuple(cell): i for i, cell in enumerate(result.tile_cells.tolist())}
    step = result.grid.step_x
    far = max(
        ((c, r) for c, r in cells if (c + 1, r) in cells),
        key=lambda cell: np.abs(
            expected_colour(result, cells[cell], 0) - expected_colour(result, cells[cell[0] + 1, cell[1]], 0)
        ).sum(),
    )
    x, y = (far[0] + 1) * step, (far[1] + 0.5) * step
    opened.page.mouse.move(*opened.on_screen(x, y))
    for _ in range(4):
        opened.page.mouse.wheel(0, -400)
    opened.drawn()
    left, top, kx, ky = opened.place()
    row, column = round(1 + top + y * ky), round(1 + left + x * kx)
    line = opened.pixels()[row, column - 12 : column + 12]
    colours = [expected_colour(result, cells[far], 0), expected_colour(result, cells[far[0] + 1, far[1]], 0)]
    between = [pixel for pixel in line if min(np.abs(pixel - colour).max() for colour in colours) > 2]
    assert len(between) <= 1


def test_threshold_and_opacity(opened: Page, world: Path) -> None:
    result = result_of(world)
    style = result_styles(result)[0]
    shown = style.shown(result.pathways[:, style.index])
    opened.page.locator("#opacity").fill("100")
    opened.page.locator("#from").fill("60")
    bound = style.low + 0.6 * (style.high - style.low)
    share = 100 * float((shown >= bound).mean())
    assert opened.page.locator("#from-share").inner_text() == f"{share:.1f} % of the tiles are shown."
    below = int(np.argmin(shown))
    above = int(np.argmax(shown))
    x, y = result.coords[above] + result.grid.span_x / 2
    assert np.abs(opened.at(x, y) - expected_colour(result, above, 0)).max() <= 2
    x, y = result.coords[below] + result.grid.span_x / 2
    hidden = opened.at(x, y)
    opened.page.keyboard.press("o")
    opened.page.locator("#opacity-text", has_text=re.compile("^0 %$")).wait_for()
    opened.painted()
    assert np.abs(opened.at(x, y) - hidden).max() <= 1


def test_pan_zoom_and_the_scale_bar(opened: Page, world: Path) -> None:
    result = result_of(world)
    before = opened.place()
    box = opened.stage()
    opened.page.mouse.move(box["x"] + 300, box["y"] + 300)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + 380, box["y"] + 340, steps=5)
    opened.page.mouse.up()
    opened.drawn()
    after = opened.place()
    assert after[0] > before[0] + 20
    opened.page.locator("h1").click()
    for key, grows in (("+", True), ("-", False)):
        before = opened.place()
        opened.page.keyboard.press(key)
        opened.drawn()
        assert (opened.place()[2] > before[2]) == grows
        number, unit = opened.page.locator(".scale span").first.inner_text().split()
        microns = float(number) * (1000 if unit == "mm" else 1)
        wide = opened.page.locator(".scale i").first.bounding_box()["width"]
        assert wide == pytest.approx(microns / result.slide.mpp_x * opened.place()[2], abs=1)
    before = opened.place()
    opened.page.keyboard.press("ArrowRight")
    opened.drawn()
    assert opened.place()[0] < before[0]
    opened.page.keyboard.press("0")
    opened.drawn()


def test_what_is_said_under_the_pointer(opened: Page, world: Path) -> None:
    result = result_of(world)
    tile = int(result.pathways[:, 0].argmax())
    x, y = result.coords[tile]
    opened.page.mouse.move(*opened.on_screen(x + result.grid.span_x / 2, y + result.grid.span_y / 2))
    told = opened.page.locator(".tip").first
    value = float(told.locator("b").inner_text().replace("\N{MINUS SIGN}", "-"))
    assert value == pytest.approx(float(result.pathways[tile, 0]), rel=0.005)
    assert f"x {x}, y {y} px" in told.inner_text()


def test_two_panes_show_the_same_place(opened: Page) -> None:
    opened.page.click("#two")
    opened.drawn()
    opened.page.mouse.move(*opened.on_screen(1000, 700, 1))
    opened.page.mouse.wheel(0, -500)
    opened.drawn()
    assert opened.place(0) == pytest.approx(opened.place(1), abs=0.5)
    assert (
        opened.page.locator(".evidence b").nth(0).inner_text() != opened.page.locator(".evidence b").nth(1).inner_text()
    )
    opened.page.locator("h1").click()
    opened.page.keyboard.press("+")
    opened.drawn()
    assert opened.place(0) == pytest.approx(opened.place(1), abs=0.5)


def test_a_tile_of_the_gallery_is_flown_to(opened: Page, world: Path) -> None:
    result = result_of(world)
    opened.page.click("#tab-tiles")
    button = opened.page.locator("#highest button").first
    x, y = result.coords[int(button.get_attribute("data-tile"))]
    button.click()
    opened.page.wait_for_selector(f"body[data-at='{x},{y}']")
    opened.drawn()
    box = opened.stage()
    left, top, kx, ky = opened.place()
    centre = left + (x + result.grid.span_x / 2) * kx, top + (y + result.grid.span_y / 2) * ky
    assert centre == pytest.approx((box["width"] / 2, box["height"] / 2), abs=4)


def test_an_area_is_drawn_told_and_saved(browser: Any, world: Path, tmp_path: Path) -> None:
    result = result_of(world)
    with running(world / "out", (world / "slides",), annotations=tmp_path / "areas") as client:
        opened = Page(browser, client.server.url + "#slide=a")
        opened.page.click("#draw")
        corners = [(500, 400), (1500, 400), (1500, 1100), (500, 1100)]
        for corner in corners:
            opened.page.mouse.click(*opened.on_screen(*corner))
        opened.page.keyboard.press("Enter")
        opened.page.wait_for_selector("#figures:not([hidden])")
        assert opened.page.locator("#figures-rows tr").count() == len(result.pathway_names)
        shown = opened.page.locator("#figures-rows small").all_inner_texts()
        unit = opened.page.locator("#figures-unit").inner_text()
        assert all(" to " in text for text in shown) and ("95 % interval" in unit) == bool(shown)
        assert ("Without an interval: " in unit) == (len(shown) < len(result.pathway_names))
        text = opened.page.locator("#figures-about").inner_text()
        drawn = float(text.split()[0])
        assert drawn == pytest.approx(1000 * 700 * 0.25 / 1e6, rel=0.03)
        opened.page.keyboard.press("Control+s")
        opened.page.wait_for_selector("#export:not([hidden])")
        document = json.loads((tmp_path / "areas" / "a.svs.geojson").read_text())
        (ring,) = document["features"][0]["geometry"]["coordinates"]
        assert np.abs(np.array(ring[:4]) - np.array(corners)).max() < 2 / opened.place()[2]
        with opened.page.expect_download() as download:
            opened.page.click("#export")
        assert json.loads(Path(download.value.path()).read_text()) == document
        opened.page.reload()
        opened.ready()
        opened.page.click("#tab-areas")
        assert opened.page.locator("#areas li").count() == 1
        opened.page.locator("#areas li").get_by_role("button", name="Delete").click()
        opened.page.click("#save")
        opened.page.locator("#saved", has_text="Saved.").wait_for()
        assert json.loads((tmp_path / "areas" / "a.svs.geojson").read_text())["features"] == []
        opened.close()


def test_freehand_and_escape(opened: Page) -> None:
    page = opened.page
    page.click("#draw")
    page.mouse.click(*opened.on_screen(600, 500))
    page.keyboard.press("Escape")
    assert not page.evaluate("document.body.classList.contains('drawing')")
    page.keyboard.press("d")
    points = [(700 + 250 * np.cos(a), 700 + 250 * np.sin(a)) for a in np.linspace(0, 6, 60)]
    page.mouse.move(*opened.on_screen(*points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*opened.on_screen(*point))
    page.mouse.up()
    page.wait_for_selector("#areas li")
    page.locator("#areas li").get_by_role("button", name="Delete").click()


def test_a_link_opens_the_same_view(browser: Any, world: Path) -> None:
    with running(world / "out", (world / "slides",)) as client:
        opened = Page(browser, client.server.url + "#slide=a")
        page = opened.page
        page.click("#two")
        page.select_option("select[aria-label=Map]", "3")
        page.locator("#opacity").fill("45")
        page.locator("#from").fill("20")
        page.mouse.move(*opened.on_screen(1200, 900))
        page.mouse.wheel(0, -600)
        opened.drawn()
        link = opened.link()
        other = Page(browser, link)
        assert other.place() == pytest.approx(opened.place(), rel=0.01, abs=2)
        for selector in ("#opacity-text", "#from-text"):
            assert other.page.locator(selector).inner_text() == page.locator(selector).inner_text()
        shown = [which.page.locator(".evidence b").all_inner_texts() for which in (opened, other)]
        assert shown[0] == shown[1]
        assert "slide=a" in link
        assert "HYPOXIA" not in link.split("#")[0]
        opened.close()
        other.close()


def test_the_list_switches_slides_and_tells_failures(opened: Page, world: Path) -> None:
    page = opened.page
    assert page.locator("#rows li").count() == 3
    assert "failed" in page.locator("#rows li", has_text="bad.svs").inner_text()
    page.locator("#rows button", has_text="b.svs").click()
    page.locator("#name", has_text="b.svs").wait_for()
    opened.ready()
    result = result_of(world, "b")
    assert result.trust is not None
    assert page.locator("#verdict").inner_text().lower() == result.trust.verdict
    page.click("#tab-slide")
    for reason in result.trust.reasons:
        assert reason in page.locator("#trust").inner_text()
    assert result.research_use in page.locator("#research-use").inner_text()
    assert page.locator("#source-words").is_visible()
    page.fill("#search", "bad")
    assert page.locator("#rows li").count() == 1
    page.fill("#search", "")
    page.locator("h1").click()
    page.keyboard.press("n")
    page.locator("#name", has_text="a.svs").wait_for()
    opened.ready()


def test_a_changed_slide_leaves_the_page(
    browser: Any, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slide_source, "LOOK_EVERY_S", 0.0)
    shutil.copytree(world / "slides", tmp_path / "slides")
    with running(world / "out", (tmp_path / "slides",)) as client:
        opened = Page(browser, client.server.url + "#slide=a")
        page = opened.page
        page.wait_for_selector("body[data-source=scored]")
        write_slide(tmp_path / "slides" / "a.svs", texture(1500, 2000, seed=8), tile=256, levels=(4,))
        page.locator("h1").click()
        for _ in range(4):
            page.keyboard.press("+")
        page.wait_for_selector("body[data-source=refused]")
        assert "changed" in page.locator("#source-words").inner_text()
        page.wait_for_selector(".stage[data-loaded=yes]")
        refused = [line for line in opened.complaints if "409" in line or "Image load aborted" in line]
        assert len(refused) == len(opened.complaints), "a refused tile is told by the browser, and nothing else is"
        opened.complaints.clear()
        opened.close()


FORBIDDEN = """
async () => {
  const out = {}, script = document.createElement("script"), link = document.createElement("div");
  try { await fetch("http://192.0.2.1/"); out.fetch = "asked"; } catch { out.fetch = "refused"; }
  script.textContent = "window.ran = 1"; document.body.append(script);
  link.setAttribute("onclick", "window.ran = 2"); document.body.append(link); link.click();
  out.ran = window.ran || 0;
  return out;
}
"""


def test_nothing_can_be_evaluated_and_nobody_else_be_asked(opened: Page) -> None:
    """What the policy forbids, tried in the page itself."""
    page = opened.page
    tried = page.evaluate(FORBIDDEN)
    assert tried == {"fetch": "refused", "ran": 0}
    assert all(
        "Content Security Policy" in line or "Failed to fetch" in line or "192.0.2.1" in line
        for line in opened.complaints
    )
    opened.complaints.clear()
    opened.requests = [url for url in opened.requests if "192.0.2.1" not in url]


@pytest.mark.parametrize("width", [390, 820, 1400])
@pytest.mark.parametrize("key", ["a", "b"])
def test_pages_of_all_widths(browser: Any, world: Path, width: int, key: str) -> None:
    """Nothing runs over the side, every control has a name, text has the contrast of WCAG AA."""
    phone = {"is_mobile": True, "has_touch": True} if width < 500 else {}
    with running(world / "out", (world / "slides",)) as client:
        opened = Page(browser, f"{client.server.url}#slide={key}", width, 844, **phone)
        page = opened.page
        page.wait_for_selector("body[data-source]:not([data-source=checking])")
        for tab in ("tiles", "areas", "slide", "map"):
            page.click(f"#tab-{tab}")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
            assert page.evaluate(UNNAMED) == []
            assert page.evaluate(CONTRAST) == [], tab
        assert opened.stage()["height"] > 250
        opened.close()


def test_touch_pans_and_opens_the_list(browser: Any, world: Path) -> None:
    with running(world / "out", (world / "slides",)) as client:
        opened = Page(browser, client.server.url + "#slide=a", 390, 844, is_mobile=True, has_touch=True)
        page = opened.page
        assert not page.locator("#slides").is_visible()
        page.tap("#list-button")
        assert page.locator("#slides").is_visible()
        page.tap("#list-close")
        assert not page.locator("#slides").is_visible()
        page.tap("#list-button")
        page.locator("#rows button", has_text="b.svs").tap()
        page.locator("#name", has_text="b.svs").wait_for()
        assert not page.locator("#slides").is_visible()
        opened.ready()
        opened.close()


def test_a_server_that_has_ended_is_told(opened: Page) -> None:
    opened.context.set_offline(True)
    opened.page.locator("#rows button", has_text="b.svs").click()
    opened.page.wait_for_selector("#toast:not([hidden])")
    assert "Is `stamp-deploy view` still running?" in opened.page.locator("#toast").inner_text()
    opened.complaints.clear()
