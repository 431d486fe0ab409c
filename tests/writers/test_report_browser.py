"""What report.html does in headless Chromium: switch, zoom, fly, sort, print; on a desk and on a phone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.chromium import CONTRAST, UNNAMED, wait_for_count
from support.result_factory import full_result, make_result, make_trust

from stamp_deploy.result import Result
from stamp_deploy.writers.picture import result_styles
from stamp_deploy.writers.report_data import page_data
from stamp_deploy.writers.report_html import write


class Page:
    """The report, open in a browser, with everything it complained of or asked for."""

    def __init__(self, browser: Any, path: Path, width: int, height: int, **options: Any) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": height}, **options)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("body[data-ready=yes]")

    def check_quiet(self) -> None:
        assert self.complaints == []
        outside = [url for url in self.requests if not url.startswith(("file:", "data:"))]
        assert outside == []
        assert sum(url.startswith("file:") for url in self.requests) == 1


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    result = make_result(n_tiles=2000, pathways=8, heads=2, thumbnail_px=1400)
    (path,) = write(result, tmp_path_factory.mktemp("report"))
    return result, path


def test_browser_switches_maps_and_shows_values(browser: Any, report: tuple[Result, Path]) -> None:
    result, path = report
    opened = Page(browser, path, 1280, 900)
    page = opened.page
    assert page.locator("#layer option").count() == 1 + 8 + 2
    before = page.evaluate("document.getElementById('map').toDataURL()")
    page.select_option("#layer", "3")
    assert page.locator("#shown").inner_text() == "E2F targets"
    assert page.evaluate("document.getElementById('map').toDataURL()") != before
    with_map = page.evaluate("document.getElementById('map').toDataURL()")
    page.locator("#opacity").fill("0")
    assert page.evaluate("document.getElementById('map').toDataURL()") != with_map
    page.locator("#opacity").fill("80")

    page.locator("#stage").scroll_into_view_if_needed()
    best = int(result.pathways[:, 3].argmax())
    box = page_data(result)["box"]
    centre = result.coords[best] + np.array([result.grid.span_x, result.grid.span_y]) / 2
    rect = page.locator("#map").bounding_box()
    page.mouse.move(
        rect["x"] + (centre[0] - box[0]) / (box[2] - box[0]) * rect["width"],
        rect["y"] + (centre[1] - box[1]) / (box[3] - box[1]) * rect["height"],
    )
    shown = float(page.locator("#tip b").inner_text().replace("\N{MINUS SIGN}", "-"))
    assert shown == pytest.approx(float(result.pathways[best, 3]), rel=0.005)
    assert "above 99 % of tiles" in page.locator("#tip").inner_text()

    width_before = page.locator("#scale-bar").bounding_box()["width"]
    page.click("#in")
    width_after = page.locator("#scale-bar").bounding_box()["width"]
    label = page.locator("#scale-text").inner_text()
    assert (label, width_after) != ("", width_before)
    page.click("#home")
    page.locator("tr[data-layer='5'] button").click()
    assert page.locator("#shown").inner_text() == "Hypoxia"
    opened.check_quiet()
    page.close()


def test_scale_bar_is_right_in_pixels(browser: Any, report: tuple[Result, Path]) -> None:
    result, path = report
    opened = Page(browser, path, 1280, 900)
    box = page_data(result)["box"]
    wide = opened.page.locator("#map").bounding_box()["width"]
    number, unit = opened.page.locator("#scale-text").inner_text().split()
    microns = float(number) * (1000 if unit == "mm" else 1)
    expected = microns / ((box[2] - box[0]) * result.slide.mpp_x) * wide
    assert opened.page.locator("#scale-bar").bounding_box()["width"] == pytest.approx(expected, abs=1)
    opened.check_quiet()
    opened.page.close()


def test_phone_shows_everything_without_sideways_scrolling(browser: Any, report: tuple[Result, Path]) -> None:
    opened = Page(browser, report[1], 375, 740, device_scale_factor=2, is_mobile=True, has_touch=True)
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.locator("#map").scroll_into_view_if_needed()
    rect = page.locator("#map").bounding_box()
    assert rect["width"] > 300
    page.touchscreen.tap(rect["x"] + rect["width"] / 2, rect["y"] + rect["height"] / 3)
    assert page.locator("#tip").is_visible()
    opened.check_quiet()
    page.close()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    result = full_result()
    (path,) = write(result, tmp_path_factory.mktemp("full"))
    return result, path


def pdf_pages(page: Any) -> int:
    pages = len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4", prefer_css_page_size=True)))
    # The page takes its sheets away once it has been printed. A loaded machine does so after the PDF is here.
    wait_for_count(page.locator(".sheet"), 0)
    return pages


def test_print_gives_one_page_per_chosen_map_with_calls_and_limits(browser: Any, full: tuple[Result, Path]) -> None:
    result, path = full
    opened = Page(browser, path, 1280, 900)
    page = opened.page
    assert pdf_pages(page) == 1, "the map on the screen, where none is chosen"
    for number in (1, 2, 4):
        page.locator(f".chosen[value='{number}']").check()
    page.emulate_media(media="print")
    assert not page.locator("#layer").is_visible()
    sheets = page.locator(".sheet")
    wait_for_count(sheets, 3)
    styles = result_styles(result)
    assert [sheets.nth(i).locator("h1").inner_text() for i in range(3)] == [styles[i].label for i in (1, 2, 4)]
    assert result.trust is not None
    text = sheets.nth(2).inner_text()
    for words in (
        styles[4].title,
        "MSI-H",
        "Doubtful",
        *result.trust.reasons,
        result.research_use,
        result.slide.sha256,
    ):
        assert words in text
    assert sheets.nth(0).locator("img").count() == 8
    assert pdf_pages(page) == 3
    page.emulate_media(media="screen")
    opened.check_quiet()
    page.close()


def test_the_tables_search_and_sort_keep_the_groups(browser: Any, full: tuple[Result, Path]) -> None:
    result, path = full
    opened = Page(browser, path, 1400, 900)
    page = opened.page

    def names() -> list[str]:
        return [str(name) for name in page.locator("tr[data-layer]:visible th button").all_inner_texts()]

    styles = result_styles(result)
    good, pale = [s for s in styles if not s.pale], [s for s in styles if s.pale]
    assert names() == [style.label for style in styles]
    for key in ("mean", "p95"):
        for down in (True, False):
            page.locator(f"th[data-key={key}] button").click()

            def value(style: Any, key: str = key) -> float:
                return result.summary()[style.name][key]

            assert names() == [s.label for part in (good, pale) for s in sorted(part, key=value, reverse=down)]
    page.locator("th[data-key=name] button").click()
    assert names() == sorted(s.label for s in good) + sorted(s.label for s in pale)
    page.fill("#search", "hall e2f")
    assert names() == ["E2F targets"]
    assert page.locator("#found").inner_text() == "1 of 6"
    page.fill("#search", "nothing of that name")
    assert names() == []
    assert not page.locator("tr.group").is_visible()
    opened.check_quiet()
    page.close()


def test_two_maps_move_together_and_a_tile_is_flown_to(browser: Any, full: tuple[Result, Path]) -> None:
    result, path = full
    opened = Page(browser, path, 1400, 900)
    page = opened.page
    assert not page.locator("#map2").is_visible()
    page.click("#two")
    left, right = (page.locator(name).bounding_box() for name in ("#map", "#map2"))
    assert left["width"] == pytest.approx(right["width"], abs=1)
    assert left["x"] + left["width"] < right["x"]
    assert page.locator("#shown2").inner_text() != page.locator("#shown").inner_text()
    tile = page.locator("#highest button").first
    number = int(tile.get_attribute("data-tile"))
    tile.click()
    x, y = result.coords[number]
    page.wait_for_selector(f"body[data-at='{x},{y}']")
    for map_id in ("#map", "#map2"):
        page.locator(map_id).scroll_into_view_if_needed()
        box = page.locator(map_id).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        told = page.locator("#tip2" if map_id == "#map2" else "#tip").inner_text()
        assert f"x {x}, y {y} px" in told
    assert page.locator("#scale-text").inner_text() == page.locator("#scale-text2").inner_text()
    page.locator("#map").focus()
    page.keyboard.press("0")
    before = page.locator("#scale-text").inner_text()
    for _ in range(4):
        page.keyboard.press("+")
    assert page.locator("#scale-text").inner_text() != before
    opened.check_quiet()
    page.close()


def test_portrait_slides_use_the_page(browser: Any, tmp_path: Path) -> None:
    result = full_result(1500, aspect=0.4)
    (path,) = write(result, tmp_path)
    opened = Page(browser, path, 1400, 900)
    shown, beside = (opened.page.locator(name).bounding_box() for name in ("#map", ".beside"))
    assert shown["height"] > 700
    assert beside["x"] > shown["x"] + shown["width"]
    assert beside["width"] > 600
    opened.check_quiet()
    opened.page.close()


@pytest.mark.parametrize("verdict", ["inside", "doubtful", "outside", "not judged"])
def test_text_has_the_contrast_of_wcag_aa(browser: Any, tmp_path: Path, verdict: Any) -> None:
    """4.5 to 1 for all text (WCAG 2.2, success criterion 1.4.3)."""
    result = full_result(trust=make_trust(1200, verdict, range(20)))
    (path,) = write(result, tmp_path)
    opened = Page(browser, path, 1400, 900)
    opened.page.click("#two")
    opened.page.select_option("#layer2", "4")
    assert opened.page.evaluate(CONTRAST) == []
    opened.page.close()


@pytest.mark.parametrize("width", [390, 820, 1400])
def test_nothing_runs_over_the_side_and_every_control_has_a_name(
    browser: Any, full: tuple[Result, Path], width: int
) -> None:
    opened = Page(browser, full[1], width, 800)
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    unnamed = page.evaluate(UNNAMED)
    assert unnamed == []
    opened.check_quiet()
    page.close()
