"""report.html: its text, and what it does in headless Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.result_factory import make_head, make_result

from stamp_deploy.result import Result
from stamp_deploy.writers.report_html import MAX_LAYER_CHARS, map_layers, page_data, render, significant, write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_page_is_self_contained_and_says_what_it_must() -> None:
    result = make_result(pathways=2)
    page = render(result)
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:)", page)
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page
    for text in (
        result.slide.sha256,
        result.bundle.sha256,
        "For research use only",
        "MSI-H",
        "0.81",
        "0.74 to 0.87",
    ):
        assert text in page, text


def test_names_from_outside_cannot_run_as_script() -> None:
    evil = "</script><script>alert(1)</script>"
    result = make_result(pathways=(evil, "<img src=x onerror=alert(1)>"), heads=[make_head(evil)])
    slide = type(result.slide)(**{**result.slide.__dict__, "name": evil})
    page = render(make_result(pathways=(evil,), heads=[make_head(evil)], slide=slide))
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert page.count("</script>") == 2


def test_a_normal_slide_stays_below_five_megabytes(tmp_path: Path) -> None:
    result = make_result(n_tiles=20_000, pathways=50, thumbnail_px=2048)
    (path,) = write(result, tmp_path)
    assert path.stat().st_size < 5_000_000
    assert page_data(result)["merged"] == 1


def test_a_huge_slide_is_merged_and_says_so() -> None:
    result = make_result(n_tiles=150_000, pathways=50, heads=0, thumbnail_px=400, embedding_dim=1)
    data = page_data(result)
    assert data["merged"] == 2
    assert sum(len(layer["data"]) for layer in data["layers"]) <= MAX_LAYER_CHARS * 1.2
    assert len(render(result)) < 5_000_000
    assert "mean of up to 2 x 2 tiles" in re.sub(r"\s+", " ", render(result))


def test_quantised_values_are_within_a_step_of_the_scores() -> None:
    from base64 import b64decode

    result = make_result(n_tiles=300, pathways=2, heads=1)
    data = page_data(result)
    assert data["bits"] == 16
    for layer, packed in zip(map_layers(result), data["layers"], strict=True):
        low, high = packed["quantised"]
        codes = np.frombuffer(b64decode(packed["data"]), "<u2")
        assert np.abs(low + (high - low) * codes / 65535 - layer.values).max() <= (high - low) / 65535 + 1e-6


def test_the_same_result_gives_the_same_page() -> None:
    result = make_result()
    assert render(result) == render(result)


def test_abstention_survival_and_no_heads_are_worded() -> None:
    heads = [
        make_head("BRAF", call=None, abstained=True, probabilities=(0.5, 0.5), interval=None),
        make_head("OS", kind="survival", classes=("risk",), probabilities=(-0.42,), call=None, interval=(-0.9, 0.1)),
    ]
    page = render(make_result(heads=heads))
    assert "No call" in page
    assert "abstained" in page
    assert "\N{MINUS SIGN}0.420" in page
    assert "Slide-level calls" not in render(make_result(heads=0)).split("<main>")[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.2345, "1.23"), (-0.01234, "\N{MINUS SIGN}0.012"), (123.4, "123"), (1234.5, "1.23e+03")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser test")
    if CHROMIUM is None:
        pytest.skip("no Chromium found: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


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
    rect = page.locator("#map").bounding_box()
    assert rect["width"] > 300
    page.touchscreen.tap(rect["x"] + rect["width"] / 2, rect["y"] + rect["height"] / 3)
    assert page.locator("#tip").is_visible()
    opened.check_quiet()
    page.close()


def test_print_is_a_few_pages_without_controls(browser: Any, report: tuple[Result, Path]) -> None:
    opened = Page(browser, report[1], 1280, 900)

    def bar_over_map() -> float:
        bar, picture = (opened.page.locator(name).bounding_box()["width"] for name in ("#scale-bar", "#map"))
        return float(bar / picture)

    on_screen = bar_over_map()
    opened.page.emulate_media(media="print")
    assert bar_over_map() == pytest.approx(on_screen, rel=0.02)  # the map is narrower on paper
    assert not opened.page.locator("#layer").is_visible()
    assert opened.page.locator("#shown").is_visible()
    pages = len(re.findall(rb"/Type\s*/Page\b", opened.page.pdf(format="A4")))
    assert 1 <= pages <= 4
    opened.check_quiet()
    opened.page.close()
