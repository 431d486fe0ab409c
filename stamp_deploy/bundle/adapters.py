"""A bundle that holds several adapters on one foundation model, as one document for each.

    {"schema_version": 2, "name": NAME, "adapters": {"lung": {...}, "breast": {...}}, "files": {...}}

Each adapter's object holds the keys of a bundle of its own, but for name, version and files, and `weights`: the file of
what it changes, and the file that all share. docs/bundle.md says more.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from .adapter_weights import MergedFile
from .rules import NAME, fail, known_keys
from .schema import check_files

ADAPTERS_KEY, WEIGHTS_KEY = "adapters", "weights"
MAX_ADAPTERS = 256
STATED_ONCE = ("schema_version", "name", "files")
"""What the bundle states for all of its adapters."""


@dataclass(frozen=True)
class AdapterDocument:
    """One adapter as a bundle's document, the file in memory that its encoder names, and its own identity."""

    name: str
    document: dict[str, Any]
    merged: MergedFile
    sha256: str


def is_shared(document: dict[str, Any]) -> bool:
    """Whether this is the bundle.json of several adapters."""
    return ADAPTERS_KEY in document


def split(document: dict[str, Any]) -> dict[str, AdapterDocument]:
    """Each adapter's document, which still has to be validated.

    An adapter's SHA-256 is that of its document with the hashes of its own and the shared files: it stays the same when
    another adapter is added.

    Raises
    ------
    BundleError
        The list of adapters or their weights break a rule.
    """
    known_keys(document, {*STATED_ONCE, ADAPTERS_KEY}, "bundle.json")
    adapters, files, name = (document.get(key) for key in (ADAPTERS_KEY, "files", "name"))
    if not isinstance(name, str) or not NAME.fullmatch(name):
        fail("'name' may hold only letters, digits, dot, dash and underscore")
    if not isinstance(adapters, dict) or not 1 <= len(adapters) <= MAX_ADAPTERS:
        fail(f"'adapters' must be an object of 1 to {MAX_ADAPTERS}")
    if not isinstance(files, dict):
        fail("bundle.json lacks 'files'")
    check_files(files)
    if len({adapter.lower() for adapter in adapters}) != len(adapters):
        fail("two adapters differ only in upper and lower case")
    found = {}
    for adapter, entry in adapters.items():
        if not NAME.fullmatch(adapter) or not isinstance(entry, dict):
            fail("an adapter's name may hold only letters, digits, dot, dash and underscore, and it must be an object")
        rest = {key: value for key, value in entry.items() if key != WEIGHTS_KEY}
        if not rest.keys().isdisjoint(STATED_ONCE):
            fail(f"the adapter {adapter!r} states what the bundle states")
        if "/" in str(rest.get("encoder")):
            fail(f"the encoder of the adapter {adapter!r} must lie beside the shared weights")
        merged = _weights(adapter, entry.get(WEIGHTS_KEY), files)
        used = {key: value for key, value in files.items() if key.startswith(f"{adapter}/")}
        for file in (rest.get("encoder"), merged.base):
            if isinstance(file, str) and file in files:
                used[file] = files[file]
        whole = {**rest, "schema_version": document.get("schema_version"), "name": f"{name}-{adapter}", "files": used}
        text = json.dumps({**whole, WEIGHTS_KEY: entry[WEIGHTS_KEY]}, sort_keys=True, separators=(",", ":"))
        found[adapter] = AdapterDocument(adapter, whole, merged, hashlib.sha256(text.encode()).hexdigest())
    return found


def pick(found: dict[str, Any], adapter: str | None) -> str:
    """The name of the adapter to use: the one that was asked for, or the only one.

    Raises
    ------
    UsageError
        There is none of that name, or several and none was named.
    """
    listed = ", ".join(sorted(found))
    if adapter is None and len(found) == 1:
        return next(iter(found))
    if adapter is None:
        raise UsageError(f"the bundle holds several adapters: {listed}", remedy="name one with --adapter")
    if adapter not in found:
        raise UsageError(f"the bundle holds no adapter {adapter[:60]!r}", remedy=f"use one of: {listed}")
    return adapter


def _weights(adapter: str, value: Any, files: dict[str, Any]) -> MergedFile:
    if not isinstance(value, dict) or set(value) != {"file", "base"}:
        fail(f"the weights of the adapter {adapter!r} must name 'file' and 'base'")
    for key in ("file", "base"):
        if not isinstance(value[key], str) or value[key] not in files:
            fail(f"the {key} of the adapter {adapter!r} is not among 'files'")
    if not value["file"].startswith(f"{adapter}/") or "/" in value["base"]:
        fail(f"the weights of the adapter {adapter!r} must lie in its own folder, and the shared ones in none")
    location = merged_location(adapter)
    if location in files:
        fail(f"a file has the name that the merged weights of {adapter!r} have in memory")
    return MergedFile(location, value["file"], value["base"])


def merged_location(adapter: str) -> str:
    """What an adapter's graph calls its changed tensors."""
    return f"{adapter}.merged"
