"""Headless Chromium for tests of pages, and what is looked at on every page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser test")
    if CHROMIUM is None:
        pytest.skip("no Chromium found: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def wait_for_count(locator: Any, count: int) -> None:
    """Wait until the page has this many of it.

    ``wait_for_function`` would be refused: its second look is an eval, which the pages' security policy forbids.
    """
    sync = pytest.importorskip("playwright.sync_api")
    sync.expect(locator).to_have_count(count, timeout=60_000)


CONTRAST = """
() => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement, style = getComputedStyle(node);
    if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE", "TEMPLATE", "NOSCRIPT"].includes(node.tagName)) continue;
    if (!node.getClientRects().length) continue;
    let behind = [255, 255, 255];
    for (let up = node; up; up = up.parentElement) {
      const colour = channels(getComputedStyle(up).backgroundColor);
      if (colour.length < 4 || colour[3] > .85) { behind = colour; break; }
    }
    const ink = node instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(channels(ink)), light(behind)].sort((p, q) => q - p), ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) poor.push(node.tagName + " " + walker.currentNode.data.trim() + " " + ratio.toFixed(2));
  }
  return poor;
}
"""
"""Text whose contrast is below 4.5 to 1 (WCAG 2.2, success criterion 1.4.3)."""

UNNAMED = """
() => [...document.querySelectorAll("button, select, input, canvas, svg, summary")].filter(node =>
  !(node.getAttribute("aria-label") || node.textContent.trim() || (node.labels && node.labels.length) ||
    node.closest("[aria-hidden=true], [role=application][aria-label]"))
).map(node => node.outerHTML.slice(0, 80))
"""
"""Controls and pictures without a name."""
