"""Generators: each module makes one attempt out of a seed."""

from __future__ import annotations

from typing import cast

from ..attempt import Kind
from . import bundles, dicom, jpeg, kills, names, states, tiff

KINDS: dict[str, Kind] = {
    module.__name__.rpartition(".")[2]: cast(Kind, module)
    for module in (tiff, jpeg, dicom, bundles, names, states, kills)
}
