"""A result's FHIR bundle: made, validated and written whole."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ..atomic import is_done, write_text_atomic
from ..cases.slide_record import SlideRecord, Unread, read_slide_record
from ..errors import DataError, UsageError
from .resources import Context, Resource, call_observation, device, pathway_observation, report, trust_observation

FILE = "report.fhir.json"
_REFERENCE = re.compile(r"(?:https?://[^\s|]+/)?([A-Z][A-Za-z]+)/[A-Za-z0-9\-.]{1,64}|urn:(?:uuid|oid):[0-9a-fA-F.\-]+")
KINDS = {"subject": "Patient", "specimen": "Specimen", "basedOn": "ServiceRequest"}
"""What a reference may point at."""


def write_fhir(folder: Path, out: Path, references: dict[str, str] | None = None) -> Resource:
    """Write the FHIR bundle of a result.

    Parameters
    ----------
    folder : Path
        A finished result that holds the format json.
    out : Path
        The file; replaced whole.
    references : dict of str, optional
        "subject", "specimen", "basedOn" -> what the hospital's server calls them, as ``Patient/123``.

    Returns
    -------
    dict
        The bundle.

    Raises
    ------
    UsageError
        The folder is no finished result, or a reference is none.
    DataError
        Its record is damaged.
    DiskError
        The file cannot be written.
    """
    if not is_done(folder):
        raise UsageError("this is no finished result", path=folder, remedy="name a folder that holds the file DONE")
    slide = read_slide_record(folder)
    if isinstance(slide, Unread):
        raise DataError(slide.cause, path=folder, remedy="score the slide again")
    bundle = make_bundle(slide, _checked(references or {}))
    _validate(bundle, folder)
    write_text_atomic(out, json.dumps(bundle, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return bundle


def make_bundle(slide: SlideRecord, references: dict[str, str]) -> Resource:
    """A transaction: sent a second time it changes nothing, because each resource is created on condition."""
    context = Context(slide, references)
    entries: list[Resource] = []

    def add(resource: Resource, *what: str) -> str:
        url = context.url(*what)
        (identifier,) = resource["identifier"]
        condition = f"identifier={identifier['system']}|{identifier['value']}"
        request = {"method": "POST", "url": resource["resourceType"], "ifNoneExist": condition}
        entries.append({"fullUrl": url, "resource": resource, "request": request})
        return url

    add(device(context), "device")
    urls = [add(trust_observation(context), "trust")]
    urls += [add(call_observation(context, head), "call", head["name"]) for head in slide.record["heads"]]
    validated = slide.validated
    for name, row in _pathways(slide).items():
        is_validated = validated.get(name) if validated else None
        urls.append(add(pathway_observation(context, name, row, is_validated), "pathway", name))
    add(report(context, urls), "report")
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "timestamp": slide.record["started_utc"],
        "entry": [entries[-1], *entries[:-1]],
    }


def _pathways(slide: SlideRecord) -> dict[str, dict[str, Any]]:
    """Figures of the whole slide; of results of schema version 1 their means alone."""
    figures: dict[str, dict[str, Any]] = slide.whole.get("pathways") or {
        name: {"mean": mean} for name, mean in slide.means.items()
    }
    return figures


def _checked(references: dict[str, str]) -> dict[str, str]:
    """References, each to the kind of resource that belongs there.

    Raises
    ------
    UsageError
        One is none.
    """
    for key, value in references.items():
        found = _REFERENCE.fullmatch(value) if value else None
        if value and (found is None or found[1] not in (None, KINDS[key])):
            raise UsageError(
                f"{value!r} is no reference to a {KINDS[key]}", remedy=f"write it as the server does: {KINDS[key]}/123"
            )
    return references


def _validate(bundle: Resource, folder: Path) -> None:
    """Hold the bundle against the definitions of FHIR (R4B, in which these resources are as in R4).

    Raises
    ------
    DataError
        It breaks them.
    """
    from fhir.resources.R4B.bundle import Bundle
    from pydantic import ValidationError

    try:
        Bundle.model_validate(bundle)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"the result gives no valid FHIR: {where}: {first['msg']}", path=folder, remedy="please report it"
        ) from error
