"""Readers of spatial transcriptomics: each turns a platform's files into one `RawSample`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from stamp_deploy.errors import UsageError

from ...toml_settings import nearest
from .base import RawSample, Settings
from .keys import KEYS_OF_FORMAT

__all__ = ["KEYS_OF_FORMAT", "RawSample", "Settings", "reader"]

_MODULES = {name: "anndata_file" if name == "anndata" else name.replace("-", "_") for name in KEYS_OF_FORMAT}
"""Name of a format -> module, with a function `read(settings) -> RawSample`."""


def reader(name: str) -> Callable[[Settings], RawSample]:
    """The function of a reader.

    Raises
    ------
    UsageError
        There is no such reader.
    """
    if name not in _MODULES:
        raise UsageError(f"there is no format {name!r}", remedy=nearest(name, _MODULES, "formats"))
    module = import_module(f".{_MODULES[name]}", __name__)
    return module.read  # type: ignore[no-any-return]
