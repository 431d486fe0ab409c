"""What tests of engines share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of engines that is this test's alone: choices, verdicts and plans of others are not found."""
    monkeypatch.setenv("STAMP_CACHE_DIR", str(tmp_path / "cache"))
