"""The JSON Schema of an export's settings: ``python -m stamp_deploy.export.schemas docs/schema``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from stamp_deploy.training.schemas import headed, write

from .config import ExportConfig


def schemas() -> dict[str, dict[str, Any]]:
    """File name -> schema."""
    return {"export.schema.json": headed(ExportConfig.model_json_schema())}


if __name__ == "__main__":
    write(Path(sys.argv[1]), schemas())
