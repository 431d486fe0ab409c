"""timm as training imports it, or a skipped module."""

from __future__ import annotations

from typing import Any

import pytest


def timm_or_skip() -> Any:
    """The module timm, also beside a torchvision that was built for another torch."""
    pytest.importorskip("torch")
    from stamp_deploy.training.model.timm_library import import_timm

    try:
        return import_timm()
    except ImportError as error:
        pytest.skip(f"training needs the extra [train]: {error}", allow_module_level=True)
