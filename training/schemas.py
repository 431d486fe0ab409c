"""JSON Schemas of settings and of bundle.json: ``python -m stamp_deploy.training.schemas docs/schema``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from stamp_deploy.bundle.json_schema import bundle_schema
from stamp_deploy.config import InferOptions

from .cohort.config import CohortConfig
from .cohort.readers.keys import KEYS_OF_FORMAT
from .config import TrainConfig
from .heads.config import HeadConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict[str, Any]]:
    """File name -> schema."""
    return {
        "train.schema.json": headed(TrainConfig.model_json_schema()),
        "cohort.schema.json": headed(_cohort()),
        "head.schema.json": headed(HeadConfig.model_json_schema()),
        "bundle.schema.json": headed(bundle_schema()),
        "infer.schema.json": headed(TypeAdapter(InferOptions).json_schema()),
    }


def _cohort() -> dict[str, Any]:
    """The keys of the whole cohort, and one kind of table [[samples]] for each format."""
    schema = CohortConfig.model_json_schema()
    kinds = []
    for name, keys in KEYS_OF_FORMAT.items():
        kind = keys.model_json_schema()
        kind["properties"]["format"] = {"const": name}
        kinds.append(kind)
    schema["properties"] |= {
        "cohort": {"type": "object", "description": "the keys above, in a table of their own"},
        "defaults": {"type": "object", "description": "keys that every sample takes where it states none"},
        "samples": {"type": "array", "minItems": 1, "items": {"oneOf": kinds}},
    }
    return schema | {"required": ["samples"]}


def headed(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with the dialect that it is written in."""
    return {"$schema": DIALECT, **schema}


def write(folder: Path, made: dict[str, dict[str, Any]]) -> None:
    """Write schemas into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in made.items():
        (folder / name).write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), schemas())
