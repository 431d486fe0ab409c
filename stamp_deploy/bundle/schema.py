"""The schema of bundle.json: one `validate`, one error a broken rule.

Nothing here reads a file. `validate` takes the parsed JSON and answers with a checked document or a
BundleError that names the rule.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from ..errors import BundleError
from ..units import MAX_MPP, MIN_MPP, believable_mpp

SCHEMA_VERSION = 1
MAX_JSON_BYTES = 16 * 2**20
MAX_FILES = 4096
MAX_FILE_BYTES = 64 * 2**30
MAX_TILE_PX = 4096
MAX_NAMES = 65_536
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
HEAD_KINDS = ("binary", "multiclass", "survival")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,200}")
_REQUIRED: dict[str, type | tuple[type, ...]] = {
    "schema_version": int,
    "name": str,
    "pfm": dict,
    "precision": str,
    "tile_px": int,
    "mpp": (int, float),
    "mean": list,
    "std": list,
    "embedding_dim": int,
    "pathways": list,
    "gene_set_sha256": str,
    "encoder": str,
    "heads": list,
    "tissue": dict,
    "input_range": dict,
    "adapter": dict,
    "training_data": dict,
    "parity": dict,
    "golden": str,
    "created_utc": str,
    "software": dict,
    "files": dict,
}


def parse_json(data: bytes) -> dict[str, Any]:
    """Strict JSON: UTF-8, no duplicate keys, no NaN, an object at the top.

    Raises
    ------
    BundleError
        The bytes are not such a document.
    """
    if len(data) > MAX_JSON_BYTES:
        _fail(f"bundle.json is {len(data)} bytes, more than the {MAX_JSON_BYTES} allowed")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except BundleError:
        raise
    except (ValueError, RecursionError) as error:
        raise BundleError(f"bundle.json is not valid JSON ({type(error).__name__})", remedy=_REMEDY) from error
    if not isinstance(value, dict):
        _fail("bundle.json does not hold an object")
    return value


def validate(document: dict[str, Any]) -> dict[str, Any]:
    """Check every rule of schema version 1 and return the document unchanged.

    Raises
    ------
    BundleError
        Naming the first rule that is broken.
    """
    version = document.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        _fail(f"schema version {version!r} is unknown; this release reads version {SCHEMA_VERSION}")
    for key, kind in _REQUIRED.items():
        if key not in document:
            _fail(f"bundle.json lacks {key!r}")
        value = document[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            _fail(f"{key!r} has the wrong type ({type(value).__name__})")
    unknown = sorted(set(document) - set(_REQUIRED))
    if unknown:
        _fail(f"bundle.json holds an unknown key {unknown[0]!r}")
    if not _NAME.fullmatch(document["name"]):
        _fail("'name' may hold only letters, digits, dot, dash and underscore")
    if document["precision"] not in PRECISIONS:
        _fail(f"precision {document['precision']!r} is unknown")
    if not 1 <= document["tile_px"] <= MAX_TILE_PX:
        _fail(f"tile_px must be 1 to {MAX_TILE_PX}")
    if not believable_mpp(_number(document["mpp"], "mpp")):
        _fail(f"mpp must be {MIN_MPP:g} to {MAX_MPP:g} um/px")
    _triple(document["mean"], "mean")
    if any(value <= 0 for value in _triple(document["std"], "std")):
        _fail("'std' must be positive")
    if not 1 <= document["embedding_dim"] <= 65_536:
        _fail("embedding_dim must be 1 to 65536")
    _unique_strings(document["pathways"], "pathways", least=1)
    if not _SHA256.fullmatch(document["gene_set_sha256"]):
        _fail("gene_set_sha256 is not a SHA-256")
    for key in ("id", "licence"):
        if not isinstance(document["pfm"].get(key), str) or not document["pfm"][key]:
            _fail(f"'pfm' must state {key!r}")
    _validate_files(document["files"])
    files = document["files"]
    if document["encoder"] not in files:
        _fail("the encoder is not among 'files'")
    if not any(name.startswith(document["golden"] + "/") for name in files):
        _fail("the golden folder is not among 'files'")
    names = [_validate_head(head, files) for head in document["heads"]]
    if len(set(names)) != len(names):
        _fail("two heads share a name")
    return document


def check_relative(name: object) -> str:
    """A file name inside the bundle: relative POSIX, plain characters, no `.`, `..` or hidden parts."""
    if not isinstance(name, str) or not name or len(name) > 512:
        _fail(f"file name {str(name)[:60]!r} is not usable")
    if any(not _PART.fullmatch(part) for part in name.split("/")):
        _fail(f"file name {name[:60]!r} leaves the bundle or holds characters that are not allowed")
    return name


def _validate_files(files: dict[str, Any]) -> None:
    if not 1 <= len(files) <= MAX_FILES:
        _fail(f"'files' must list 1 to {MAX_FILES} files")
    for name, entry in files.items():
        check_relative(name)
        if not isinstance(entry, dict) or set(entry) != {"sha256", "size"}:
            _fail(f"the entry of {name!r} must hold sha256 and size")
        size = entry["size"]
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_FILE_BYTES:
            _fail(f"the size of {name!r} is not 0 to {MAX_FILE_BYTES}")
        if not isinstance(entry["sha256"], str) or not _SHA256.fullmatch(entry["sha256"]):
            _fail(f"the sha256 of {name!r} is not a SHA-256")
    if len({name.lower() for name in files}) != len(files):
        _fail("two files differ only in upper and lower case")


def _validate_head(head: Any, files: dict[str, Any]) -> str:
    if not isinstance(head, dict):
        _fail("a head is not an object")
    for key, kind in (("name", str), ("file", str), ("kind", str), ("classes", list), ("thresholds", list)):
        if not isinstance(head.get(key), kind):
            _fail(f"a head lacks {key!r} or has the wrong type there")
    name: str = head["name"]
    if not _NAME.fullmatch(name):
        _fail("a head's name may hold only letters, digits, dot, dash and underscore")
    if head["file"] not in files:
        _fail(f"the file of head {name!r} is not among 'files'")
    if head["kind"] not in HEAD_KINDS:
        _fail(f"head {name!r} is of an unknown kind")
    _unique_strings(head["classes"], f"classes of head {name!r}", least=0)
    count = len(head["classes"])
    if (head["kind"] == "binary" and count != 2) or (head["kind"] == "multiclass" and count < 2):
        _fail(f"head {name!r} is {head['kind']} with {count} classes")
    if not _number(head.get("temperature"), f"temperature of head {name!r}") > 0:
        _fail(f"the temperature of head {name!r} must be positive")
    for value in head["thresholds"]:
        _number(value, f"threshold of head {name!r}")
    band = head.get("abstain")
    if band is not None:
        if not isinstance(band, list) or len(band) != 2:
            _fail(f"the abstention band of head {name!r} must be [low, high]")
        low, high = (_number(value, f"abstention band of head {name!r}") for value in band)
        if low > high:
            _fail(f"the abstention band of head {name!r} is upside down")
    if not isinstance(head.get("details"), dict):
        _fail(f"head {name!r} lacks 'details'")
    return name


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        _fail(f"the {what} is not a finite number")
    return float(value)


def _triple(value: list[Any], what: str) -> tuple[float, float, float]:
    if len(value) != 3:
        _fail(f"{what!r} must hold three numbers")
    red, green, blue = (_number(item, what) for item in value)
    return red, green, blue


def _unique_strings(value: list[Any], what: str, *, least: int) -> None:
    if not least <= len(value) <= MAX_NAMES or not all(isinstance(item, str) and item for item in value):
        _fail(f"the {what} must be a list of names")
    if len(set(value)) != len(value):
        _fail(f"the {what} repeat a name")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        _fail("bundle.json repeats a key")
    return result


def _no_constant(text: str) -> NoReturn:
    _fail(f"bundle.json holds {text}")


_REMEDY = "get the bundle again from its source, or export it again"


def _fail(cause: str) -> NoReturn:
    raise BundleError(cause, remedy=_REMEDY)
