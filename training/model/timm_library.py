"""timm, also beside a torchvision whose compiled operators cannot be loaded.

timm imports torchvision for its image transforms, which are Python. torchvision also has operators for object detection
in a compiled library. One that was built for CUDA cannot load it beside a torch without CUDA, and then cannot be
imported at all: it describes the results of ``nms`` and ``qnms``, which do not exist. Nothing here detects objects, so
the two are declared without code. Calling them fails, as torchvision says itself.
"""

from __future__ import annotations

from typing import Any

import torch

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []
"""Kept: torch forgets the operators of a library that is gone."""


def import_timm() -> Any:
    """The module timm; torchvision's missing operators are declared first, where they are missing.

    Raises
    ------
    ImportError
        timm or torchvision is not installed.
    RuntimeError
        torchvision cannot be imported for another reason.
    """
    try:
        import torchvision
    except RuntimeError:
        _declare_operators()
        import torchvision  # noqa: F401
    import timm

    return timm


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + _SCHEMA)
    _declared.append(library)
