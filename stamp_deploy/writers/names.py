"""Names for files and for people, out of pathway names that may hold anything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_MAX_CHARS = 80
_COLLECTIONS = ("HALLMARK_", "REACTOME_", "KEGG_", "GOBP_", "WP_", "PID_", "BIOCARTA_")
_ACRONYMS = frozenset(
    [
        "ATP",
        "DNA",
        "RNA",
        "UV",
        "MYC",
        "KRAS",
        "TGF",
        "TNF",
        "TNFA",
        "NFKB",
        "MTOR",
        "PI3K",
        "AKT",
        "JAK",
        "STAT",
        "IL",
        "IFN",
        "EMT",
        "WNT",
        "NOTCH",
        "ROS",
        "UPR",
        "DN",
        "UP",
        "E2F",
        "G2M",
        "MHC",
        "TCR",
        "BCR",
        "VEGF",
        "EGFR",
        "FGFR",
        "MAPK",
        "ERBB",
        "HER",
        "VIA",
    ]
) - {"UP", "VIA", "NOTCH"}


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


def display_name(name: str) -> str:
    """A gene-set name for people: "HALLMARK_E2F_TARGETS" becomes "E2F targets"; other names stay."""
    if "_" not in name or not name.isupper():
        return name
    for prefix in _COLLECTIONS:
        if name.startswith(prefix) and len(name) > len(prefix):
            name = name.removeprefix(prefix)
            break
    words = [
        word if word in _ACRONYMS or any(c.isdigit() for c in word) else word.lower()
        for word in name.split("_")
        if word
    ]
    text = " ".join(words)
    return text[:1].upper() + text[1:]
