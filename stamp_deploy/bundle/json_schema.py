"""bundle.json as a JSON Schema, for other programs; made of the same names, types and ranges that `validate` checks.

The schema is published as docs/schema/bundle.schema.json. `validate` goes further: it also holds values against each
other (the number of thresholds against the kind of a head, file names against `files`, ends of a range in order).
"""

from __future__ import annotations

from typing import Any

from ..config import ICC_USES
from ..units import MAX_MPP, MIN_MPP
from ..validation import QUANTILES, SCALES
from . import adapters, schema, twins, validation_block
from .rules import MAX_NAME_CHARACTERS, NAME, PART, SHA256

Schema = dict[str, Any]
TEXT = r"^[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$"
"""A line of text without blanks at its ends: what `rules.text` asks for, as far as a pattern can say it."""
_JSON_TYPES = {int: "integer", float: "number", str: "string", dict: "object", list: "array", type(None): "null"}


def bundle_schema() -> Schema:
    """The JSON Schema (draft 2020-12) of bundle.json in the latest version of the format."""
    keys = {**schema._REQUIRED, **dict.fromkeys(schema._SECOND, object)}
    special = _special()
    several = [*adapters.STATED_ONCE, adapters.ADAPTERS_KEY]
    return {
        "title": "bundle.json",
        "description": f"What a bundle of stamp-deploy is, in version {schema.SCHEMA_VERSION} of its format: one "
        f"model, or several adapters on one foundation model under {adapters.ADAPTERS_KEY!r}.",
        "type": "object",
        "properties": {
            **{key: special.get(key) or _typed(kind) for key, kind in keys.items()},
            adapters.ADAPTERS_KEY: _adapters([key for key in keys if key not in adapters.STATED_ONCE]),
        },
        "additionalProperties": False,
        "if": {"required": [adapters.ADAPTERS_KEY]},
        "then": {"required": several, "propertyNames": {"enum": several}},
        "else": {"required": list(keys)},
    }


def _special() -> Schema:
    """The keys of which more is asked than a type."""
    name = {"type": "string", "pattern": f"^{NAME.pattern}$"}
    sha256 = {"type": "string", "pattern": f"^{SHA256.pattern}$"}
    file = {"type": "string", "minLength": 1, "maxLength": 512}
    return {
        "schema_version": {"const": schema.SCHEMA_VERSION},
        "name": name,
        "pfm": {
            "type": "object",
            "required": ["id", "licence"],
            "properties": {
                "id": _text(1000),
                "licence": _text(1000),
                "trained_on": _names(0, 16),
                "icc": {"enum": list(ICC_USES)},
            },
        },
        "precision": {"enum": list(schema.PRECISIONS)},
        "tile_px": _whole(1, schema.MAX_TILE_PX),
        "mpp": {**_number(MIN_MPP, MAX_MPP), "description": "microns per pixel"},
        "mean": _triple({"minimum": 0.0}),
        "std": _triple({"exclusiveMinimum": schema.STD_ABOVE}),
        "embedding_dim": _whole(1, 65_536),
        "pathways": _names(1, schema.MAX_NAMES),
        "gene_set_sha256": sha256,
        "created_utc": {"type": "string", "format": "date-time"},
        "tissue": {"type": "object", "properties": _tissue(), "additionalProperties": _other_tissue()},
        "input_range": {
            "type": "object",
            "properties": {"mpp": _span(0.0, 2 * MAX_MPP), "scores": _span(-1e9, 1e9)},
        },
        "files": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": schema.MAX_FILES,
            "propertyNames": {**file, "pattern": f"^{PART.pattern}(?:/{PART.pattern})*$"},
            "additionalProperties": _exactly({"sha256": sha256, "size": _whole(0, schema.MAX_FILE_BYTES)}),
        },
        "outputs": {"enum": [list(schema.FIRST_OUTPUTS), list(schema.ALL_OUTPUTS)]},
        "trust": {"type": ["string", "null"]},
        "validation": {"anyOf": [_validation(), {"type": "null"}]},
        "twins": {"type": "array", "maxItems": twins.MAX_TWINS, "items": _twin(file)},
        "heads": {"type": "array", "maxItems": schema.MAX_HEADS, "items": _head(name, file)},
    }


def _adapters(keys: list[str]) -> Schema:
    """An adapter states what a bundle of its own would, but for what all share; its encoder lies beside the others."""
    beside = {"type": "string", "pattern": "^[^/]+$"}
    own: Schema = {key: {"$ref": f"#/properties/{key}"} for key in keys}
    own["encoder"] = beside
    own[adapters.WEIGHTS_KEY] = _exactly({"file": {"type": "string", "pattern": "/"}, "base": beside})
    return {
        "type": "object",
        "minProperties": 1,
        "maxProperties": adapters.MAX_ADAPTERS,
        "propertyNames": {"pattern": f"^{NAME.pattern}$"},
        "additionalProperties": _exactly(own),
    }


def _tissue() -> Schema:
    ranges = {key: _number(low, high) for key, (low, high) in schema.TISSUE_RANGES.items()}
    ranges["max_px"]["type"] = "integer"
    return {**ranges, "method": _text(), "exclude_ink": {"type": "boolean"}}


def _other_tissue() -> Schema:
    return {"anyOf": [{"type": "boolean"}, _text(), _number(-schema.MAX_TISSUE_NUMBER, schema.MAX_TISSUE_NUMBER)]}


def _validation() -> Schema:
    pathway: Schema = {"name": _text()}
    pathway |= {key: _or_null(_number(-1.0, 1.0)) for key in validation_block._CORRELATIONS}
    pathway |= {key: _whole(0, validation_block.MAX_COUNT) for key in validation_block._COUNTS}
    score = _number(-validation_block.MAX_SCORE, validation_block.MAX_SCORE)
    pathway |= {key: _or_null(_exactly(dict.fromkeys(QUANTILES, score))) for key in validation_block._QUANTILES}
    spread = _number(validation_block.MIN_SPREAD, validation_block.MAX_SCORE)
    pathway |= {key: _or_null(_exactly({"centre": score, "spread": spread})) for key in SCALES}
    return {
        "type": "object",
        "properties": {
            "unit": _text(),
            "interval_over": {"enum": [None, "patients", "sections", "blocks"]},
            "lacks": {"type": "array", "maxItems": validation_block.MAX_NOTES, "items": _text(1000)},
            "pathways": {"type": "array", "items": _exactly(pathway)},
        },
        "required": ["unit", "lacks", "pathways"],
        "additionalProperties": False,
    }


def _twin(file: Schema) -> Schema:
    return _exactly(
        {
            "file": {**file, "pattern": r"\.onnx$"},
            "precision": {"enum": list(schema.PRECISIONS)},
            "engines": {"type": "array", "minItems": 1, "maxItems": twins.MAX_ENGINES, "items": _text(64)},
            "by_default": {"type": "boolean"},
            "way": _text(200),
            "parity": {"type": "object"},
        }
    )


def _head(name: Schema, file: Schema) -> Schema:
    low, high = schema.TEMPERATURES
    cut = _number(-schema.MAX_LOG_HAZARD, schema.MAX_LOG_HAZARD)
    properties = {key: _typed(kind) for key, kind in schema._HEAD.items()} | {
        "name": name,
        "file": file,
        "kind": {"enum": list(schema.HEAD_KINDS)},
        "classes": _names(0, schema.MAX_CLASSES),
        "thresholds": {"type": "array", "maxItems": schema.MAX_CLASSES, "items": cut},
        "temperature": _number(low, high),
        "abstain": _span(-schema.MAX_LOG_HAZARD, schema.MAX_LOG_HAZARD),
    }
    probability = _number(0.0, 1.0)
    classes_are = {"not": {"properties": {"kind": {"const": "survival"}}}}
    as_probabilities = {"thresholds": {"items": probability}, "abstain": _span(0.0, 1.0)}
    return {
        "type": "object",
        "properties": properties,
        "required": [key for key in properties if key != "abstain"],
        "additionalProperties": False,
        "if": classes_are,
        "then": {"properties": as_probabilities},
    }


def _typed(kind: Any) -> Schema:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    types = list(dict.fromkeys(_JSON_TYPES[k] for k in kinds))
    types = [t for t in types if not (t == "integer" and "number" in types)]
    return {"type": types if len(types) > 1 else types[0]}


def _number(low: float, high: float) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high}


def _whole(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _text(longest: int = MAX_NAME_CHARACTERS) -> Schema:
    return {"type": "string", "pattern": TEXT, "minLength": 1, "maxLength": longest}


def _names(least: int, most: int) -> Schema:
    return {"type": "array", "items": _text(), "minItems": least, "maxItems": most, "uniqueItems": True}


def _triple(above: Schema) -> Schema:
    return {
        "type": "array",
        "items": {"type": "number", "maximum": 1.0, **above},
        "minItems": 3,
        "maxItems": 3,
        "description": "red, green, blue",
    }


def _span(low: float, high: float) -> Schema:
    pair = {"type": "array", "items": _number(low, high), "minItems": 2, "maxItems": 2, "description": "low, high"}
    return _or_null(pair)


def _or_null(value: Schema) -> Schema:
    return {"anyOf": [value, {"type": "null"}]}


def _exactly(properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
