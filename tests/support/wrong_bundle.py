"""Bundles that are well-formed and wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from stamp_deploy.bundle import Bundle, write_bundle_json


def swap_golden(path: Path, other: Path) -> Bundle:
    """Give a bundle the golden outputs of another one, and make every hash fit."""
    for name in ("embedding", "pathways"):
        shutil.copy(other / "golden" / f"{name}.npy", path / "golden" / f"{name}.npy")
    document = json.loads((path / "bundle.json").read_text())
    body = {key: value for key, value in document.items() if key not in ("files", "schema_version")}
    return write_bundle_json(path, body)
