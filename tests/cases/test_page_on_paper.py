"""The page of a summary on a phone and on paper, for a slide with many reasons against it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.result_factory import stored
from support.result_folders import slide_result

from stamp_deploy.cases import write_summary

REASONS = tuple(
    f"{n}0% of the measured tiles look unlike those of training, in a way that takes words" for n in range(1, 9)
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    out: Path = tmp_path_factory.mktemp("paper") / "results"
    for seed, verdict in enumerate(("outside", "inside")):
        result = slide_result(f"s{seed}.svs", [1.0, 0, 0, 0, 0], verdict, seed=seed)
        if verdict == "outside":
            assert result.trust is not None
            result = replace(result, trust=replace(result.trust, reasons=REASONS))
        stored(result, out / f"s{seed}", ("json", "hdf5"))
    write_summary(out)
    return (out / "summary" / "index.html").as_uri()


def test_two_reasons_are_shown_and_the_others_are_a_click_away(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 375, "height": 800})
    page.goto(address)
    shown = page.locator(".reason:visible").all_inner_texts()
    assert shown == list(REASONS[:2])
    page.get_by_text("6 more reasons").click()
    assert page.locator(".reason:visible").all_inner_texts() == list(REASONS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.close()


def test_the_heat_map_keeps_its_size_on_a_phone(browser: Any, address: str) -> None:
    """Its letters could not be read: it was scaled to the width of the screen."""
    page = browser.new_page(viewport={"width": 375, "height": 800})
    page.goto(address)
    sizes = page.evaluate("(map => [map.clientWidth, map.naturalWidth])(document.querySelector('img.map'))")
    assert sizes[0] == sizes[1]
    page.close()


def test_on_paper_no_column_is_cut_and_reasons_have_room(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 1046, "height": 720})  # A4 across, without its margins
    page.emulate_media(media="print")
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1046
    assert page.evaluate(
        "(table => table.scrollWidth <= table.parentElement.clientWidth)(document.querySelector('#slides'))"
    )
    assert page.locator(".reason").first.bounding_box()["width"] >= 200
    page.close()
