"""What a bundle is and what it says of its scores, for a person or as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundle import Bundle, load_adapters

_WIDTH = 12


@dataclass(frozen=True)
class BundleInspection:
    """The report of `stamp-deploy inspect BUNDLE`: `facts` are JSON values, or ``adapters`` with those of each."""

    facts: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return self.facts

    def to_text(self) -> str:
        """The report as aligned lines."""
        several = self.facts.get("adapters")
        if several is None:
            return _lines(self.facts)
        return "\n\n".join(f"{'adapter':<{_WIDTH}}{name}\n{_lines(facts)}" for name, facts in several.items())


def describe_bundle(path: Path) -> BundleInspection:
    """Load a bundle and say what it is, and what each of its adapters is where it holds several.

    Raises
    ------
    BundleError
        Anything about it is not as it should be.
    """
    found = {name: _facts(bundle) for name, bundle in load_adapters(path).items()}
    return BundleInspection(found.get("", {"adapters": found}))


def _lines(facts: dict[str, Any]) -> str:
    trust = facts["trust"]
    rows = [
        ("bundle", f"{facts['name']}, schema version {facts['schema_version']}, {facts['sha256'][:12]}"),
        ("model", f"{facts['model']} ({facts['licence']}), {facts['precision']}"),
        ("tiles", f"{facts['tile_px']} px at {facts['mpp']:g} um/px"),
        ("gives", ", ".join(facts["outputs"])),
        ("unit", facts["unit"] or "not stated"),
        ("pathways", f"{facts['pathways']}, {facts['measured']} with a held-out r, {facts['validated']} validated"),
        ("heads", ", ".join(facts["heads"]) or "none"),
        ("reference", _reference(trust) if trust else "none: slides are not judged"),
        *(("not known", sentence) for sentence in facts["lacks"]),
    ]
    return "\n".join(f"{name:<{_WIDTH}}{text}" for name, text in rows)


def _facts(bundle: Bundle) -> dict[str, Any]:
    known, reference = bundle.validation.pathways, bundle.reference
    return {
        "name": bundle.name,
        "schema_version": bundle.schema_version,
        "sha256": bundle.sha256,
        "model": bundle.pfm_id,
        "licence": bundle.pfm_licence,
        "precision": bundle.precision,
        "tile_px": bundle.tile_px,
        "mpp": bundle.mpp,
        "outputs": list(bundle.outputs),
        "unit": bundle.validation.unit,
        "pathways": len(bundle.pathways),
        "measured": sum(p.r is not None for p in known),
        "validated": sum(p.validated for p in known),
        "heads": [head.name for head in bundle.heads],
        "trust": None
        if reference is None
        else {"left_out_by": reference.left_out_by, "groups": reference.groups, "tiles": reference.tiles},
        "lacks": list(bundle.lacks),
    }


def _reference(trust: dict[str, Any]) -> str:
    return f"{trust['tiles']} training tiles, {trust['groups']} {trust['left_out_by']}s left out in turn"
