"""Names for files and for people, out of pathway names that may hold anything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from hashlib import sha256

from ..errors import UsageError
from ..pathway_names import display_name, without_collection

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_MAX_CHARS = 80


def safe_file_names(names: Sequence[str]) -> list[str]:
    """File-name stems, one a name: safe on every file system, and different even where case does not count.

    A name of plain letters, digits, ``.``, ``_`` and ``-`` stays as it is; any other, an overlong one, one
    that Windows reserves and one that equals another but for case gets 8 hex digits of its SHA-256 appended.
    """
    stems = []
    folded = [name.casefold() for name in names]
    for name, fold in zip(names, folded, strict=True):
        stem = _UNSAFE.sub("_", name).strip("._-")[:_MAX_CHARS]
        if not stem or stem != name or _RESERVED.fullmatch(stem) or folded.count(fold) > 1:
            stem = f"{stem or 'pathway'}-{sha256(name.encode()).hexdigest()[:8]}"
        stems.append(stem)
    return stems


def find_name(names: Sequence[str], wanted: str) -> int:
    """The position of the name that a person means: "HYPOXIA" or "hypoxia" finds "HALLMARK_HYPOXIA".

    Raises
    ------
    UsageError
        No name fits, or several do.
    """
    if not isinstance(wanted, str):
        raise UsageError(f"{wanted!r} is no name", remedy="write it as text; one of: " + ", ".join(names[:20]))
    if wanted in names:
        return list(names).index(wanted)
    folded = wanted.casefold().replace("_", " ").strip()
    found = [i for i, name in enumerate(names) if folded in _spellings(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{wanted!r} fits {len(found)} names", remedy="write one of: " + ", ".join(names[i] for i in found)
        )
    near = get_close_matches(folded, {spelling for name in names for spelling in _spellings(name)}, 3, 0.5)
    meant = [name for name in names if set(near) & _spellings(name)]
    raise UsageError(f"there is no {wanted!r} in this result", remedy="one of: " + ", ".join(meant or names[:20]))


def _spellings(name: str) -> set[str]:
    return {text.casefold().replace("_", " ") for text in (name, without_collection(name), display_name(name))}
