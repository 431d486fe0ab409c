"""Gene-set names for people: "HALLMARK_E2F_TARGETS" becomes "E2F targets"."""

from __future__ import annotations

_COLLECTIONS = ("HALLMARK_", "REACTOME_", "KEGG_", "GOBP_", "WP_", "PID_", "BIOCARTA_")
_ACRONYMS = (
    "ATP DNA RNA UV MYC KRAS TGF TNF TNFA NFKB MTOR PI3K AKT JAK STAT IL IFN EMT WNT ROS UPR DN E2F G2M MHC TCR BCR "
    "VEGF EGFR FGFR MAPK ERBB HER"
)


def without_collection(name: str) -> str:
    """The name without the collection that it comes from: "HALLMARK_HYPOXIA" becomes "HYPOXIA"."""
    return next((name[len(head) :] for head in _COLLECTIONS if name.startswith(head) and len(name) > len(head)), name)


def display_name(name: str) -> str:
    """A gene-set name for people: "HALLMARK_E2F_TARGETS" becomes "E2F targets"; other names stay."""
    if "_" not in name or not name.isupper():
        return name
    acronyms = _ACRONYMS.split()
    words = [
        word if word in acronyms or any(c.isdigit() for c in word) else word.lower()
        for word in without_collection(name).split("_")
        if word
    ]
    text = " ".join(words)
    return text[:1].upper() + text[1:]
