"""The numbers below a report's histogram are round, and lie where they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stamp_deploy import html_page

SCRIPT = (Path(html_page.__file__).parent / "maps.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(browser: Any) -> Any:
    opened = browser.new_page()
    opened.set_content('<svg id="h" viewBox="0 0 320 130"></svg>')
    opened.add_script_tag(content=SCRIPT)
    return opened


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (-1.94, 2.02, [-1, 0, 1, 2]),
        (-0.31, 0.44, [-0.2, 0, 0.2, 0.4]),
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-12.8, -4.1, [-12, -10, -8, -6]),
        (0.1, 0.3, [0.1, 0.15, 0.2, 0.25, 0.3]),
        (3.1e-5, 9.2e-5, [4e-5, 6e-5, 8e-5]),
    ],
)
def test_ticks_are_round_numbers_in_their_places(page: Any, low: float, high: float, shown: list[float]) -> None:
    """The middle of the axis, as 0.0397, was taken for a median."""
    one = {"histogram": {"low": low, "high": high, "counts": [1, 4, 2], "known": None, "outside": None}}
    page.evaluate("one => drawHistogram(document.getElementById('h'), one)", one)
    texts = page.locator("#h text").all_text_contents()
    assert [float(text.replace("\N{MINUS SIGN}", "-")) for text in texts] == shown
    found = [float(node.get_attribute("x")) for node in page.locator("#h text").element_handles()]
    assert found == pytest.approx([8 + (value - low) / (high - low) * 304 for value in shown])
