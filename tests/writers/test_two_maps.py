"""With two maps side by side, histogram and tiles say which of them they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.result_factory import full_result

from stamp_deploy.writers.report_html import write


def test_with_two_maps_histogram_and_tiles_name_theirs(browser: Any, tmp_path: Path) -> None:
    (path,) = write(full_result(), tmp_path)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready=yes]")
    heading = page.locator(".beside h3").first
    assert heading.inner_text() == "Tiles by score"
    page.click("#two")
    left = page.locator("#shown").inner_text()
    assert left and heading.inner_text() == f"Tiles by score: {left}"
    page.locator("#layer").select_option(index=3)
    assert page.locator("#shown").inner_text() != left
    assert heading.inner_text() == "Tiles by score: " + page.locator("#shown").inner_text()
    page.click("#two")
    assert heading.inner_text() == "Tiles by score"
    page.close()
