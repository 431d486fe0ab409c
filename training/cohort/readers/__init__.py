"""Readers of spatial transcriptomics: each turns a platform's files into one `RawSample`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from stamp_deploy.errors import UsageError

from .base import RawSample, Settings

__all__ = ["READERS", "RawSample", "Settings", "reader"]

READERS = {
    "legacy-st": "legacy_st",
    "visium": "visium",
    "visium-hd": "visium_hd",
    "xenium": "xenium",
    "hest": "hest",
    "anndata": "anndata_file",
}
"""Name in the config -> module, each with a function `read(settings) -> RawSample` and a tuple `KEYS`."""


def reader(name: str) -> tuple[Callable[[Settings], RawSample], tuple[str, ...]]:
    """The function of a reader and the keys that it knows.

    Raises
    ------
    UsageError
        There is no such reader.
    """
    if name not in READERS:
        raise UsageError(f"there is no format {name!r}", remedy="use one of: " + ", ".join(READERS))
    module = import_module(f".{READERS[name]}", __name__)
    return module.read, module.KEYS
