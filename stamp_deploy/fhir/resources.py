"""Resources of FHIR R4 out of a result's record, as JSON values.

Own codes are told as text with a code system of our own: no LOINC or SNOMED CT code means "predicted by a model from
morphology". Nothing of the slide's file but its hash goes out: its name may identify a patient. Ids follow from slide,
model and options, so that the same result gives the same bytes.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

from .. import __version__
from ..cases.slide_record import SlideRecord
from ..pathway_names import display_name
from ..writers.report_words import VERDICTS

NAMESPACE = UUID("0d1f7c1e-5a3b-5e0c-8c7e-7f0b2f7b6d11")
CODES = f"urn:uuid:{uuid5(NAMESPACE, 'codes')}"
IDENTIFIERS = f"urn:uuid:{uuid5(NAMESPACE, 'identifiers')}"
"""Code system and identifier system of stamp-deploy; they stay the same in all versions."""
UCUM = "http://unitsofmeasure.org"
ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
CATEGORY = "http://terminology.hl7.org/CodeSystem/v2-0074"
PRELIMINARY = "preliminary"
TITLE = "Molecular read-outs predicted from H&E morphology (stamp-deploy)"
Resource = dict[str, Any]


class Context:
    """What all resources of one report share.

    Parameters
    ----------
    slide : SlideRecord
    references : dict of str
        "subject", "specimen" and "basedOn" -> a reference, as ``Patient/123``; those that are not known are left out.
    """

    def __init__(self, slide: SlideRecord, references: dict[str, str]) -> None:
        record = slide.record
        self.slide, self.record = slide, record
        parts = record["slide"]["sha256"], record["bundle"]["sha256"], record["config_sha256"], record["started_utc"]
        self.root = uuid5(NAMESPACE, ":".join(map(str, parts)))
        self.shared = {
            key: {"reference": value} for key, value in references.items() if value and key in ("subject", "specimen")
        }
        self.based_on = [{"reference": references["basedOn"]}] if references.get("basedOn") else None

    def shared_of_report(self) -> Resource:
        """As `shared`; a report may have several specimens."""
        return {key: [value] if key == "specimen" else value for key, value in self.shared.items()}

    def url(self, *what: str) -> str:
        """Address of a resource inside the bundle."""
        return f"urn:uuid:{uuid5(self.root, '/'.join(what))}"

    def identifier(self, *what: str) -> list[dict[str, str]]:
        """What a server knows a resource by when it is sent again."""
        return [{"system": IDENTIFIERS, "value": str(uuid5(self.root, "/".join(what)))}]


def code(key: str, text: str) -> Resource:
    """A code of our own system, with its text."""
    return {"coding": [{"system": CODES, "code": key.replace(" ", "-"), "display": text}], "text": text}


def quantity(value: float, unit: str) -> Resource:
    """A number without a unit of UCUM; `unit` says in words what it is."""
    return {"value": round(float(value), 6), "unit": unit, "system": UCUM, "code": "1"}


def device(context: Context) -> Resource:
    """The software with its model."""
    bundle = context.record["bundle"]
    return {
        "resourceType": "Device",
        "identifier": context.identifier("device"),
        "status": "active",
        "deviceName": [{"name": f"stamp-deploy, {bundle['name']}", "type": "user-friendly-name"}],
        "version": [
            {"value": str(context.record["software"].get("stamp-deploy", __version__))},
            {"value": f"bundle.json SHA-256 {bundle['sha256']}"},
        ],
        "note": [{"text": context.record["research_use"]}],
    }


def report(context: Context, observations: list[str]) -> Resource:
    """The report: preliminary, with the verdict on the slide before anything else."""
    record, slide = context.record, context.slide
    name, meaning = VERDICTS[slide.verdict]
    reasons = f" Seen: {'; '.join(slide.reasons)}." if slide.reasons else ""
    conclusion = f"{record['research_use']} Trust: {name}. {meaning}{reasons}"
    return _full(
        {
            "resourceType": "DiagnosticReport",
            "identifier": context.identifier("report"),
            "basedOn": context.based_on,
            "status": PRELIMINARY,
            "category": [{"coding": [{"system": CATEGORY, "code": "PAT"}], "text": "Pathology"}],
            "code": code("report", TITLE),
            **context.shared_of_report(),
            "effectiveDateTime": record["started_utc"],
            "issued": record["started_utc"],
            "result": [{"reference": url} for url in observations],
            "conclusion": conclusion,
        }
    )


def trust_observation(context: Context) -> Resource:
    """The verdict on the slide."""
    slide = context.slide
    return _observation(
        context,
        "trust",
        code("trust", "Whether the slide is like what the model knows"),
        valueCodeableConcept=code(f"trust-{slide.verdict}", slide.verdict),
        note=[{"text": reason} for reason in (*slide.reasons, *slide.warnings)] or None,
    )


def call_observation(context: Context, head: dict[str, Any]) -> Resource:
    """A slide-level call, or why there is none, with the number that it rests on."""
    components = [_component(head["value_name"], valueQuantity=quantity(head["value"], head["value_name"]))]
    if head.get("interval"):
        components.append(_interval("95 % interval", head["interval"], head["value_name"]))
    if head["kind"] == "multiclass":
        components += [
            _component(f"P({name})", valueQuantity=quantity(value, "probability"))
            for name, value in zip(head["classes"], head["probabilities"], strict=True)
        ]
    value: Resource = {"valueCodeableConcept": code(f"call-{head['call']}", head["call"])} if head["call"] else {}
    if not head["call"]:
        why = str(head.get("cause") or "the head makes no call")
        value["dataAbsentReason"] = {"coding": [{"system": ABSENT, "code": "unknown"}], "text": f"No call: {why}"}
    what = code(f"head-{head['name']}", head["name"])
    return _observation(context, f"call/{head['name']}", what, **value, component=components)


def pathway_observation(context: Context, name: str, row: dict[str, Any], is_validated: bool | None) -> Resource:
    """A pathway's mean over the slide."""
    unit = context.slide.unit
    components = []
    if row.get("mean_interval"):
        components.append(_interval("95 % interval", row["mean_interval"], unit))
    if row.get("mean_z") is not None:
        components.append(_component("Mean z on the common scale", valueQuantity=quantity(row["mean_z"], "z")))
    if row.get("share_above") is not None:
        share = quantity(row["share_above"], "share of tissue")
        components.append(_component("Share of tissue above the threshold", valueQuantity=share))
    said = {True: None, False: "This pathway is not validated.", None: "How well this score holds was not measured."}
    note = said[is_validated]
    return _observation(
        context,
        f"pathway/{name}",
        code(f"pathway-{name}", display_name(name)),
        valueQuantity=quantity(row["mean"], unit),
        component=components or None,
        note=[{"text": note}] if note else None,
    )


def _observation(context: Context, key: str, what: Resource, **values: Any) -> Resource:
    return _full(
        {
            "resourceType": "Observation",
            "identifier": context.identifier("observation", key),
            "basedOn": context.based_on,
            "status": PRELIMINARY,
            "code": what,
            **context.shared,
            "effectiveDateTime": context.record["started_utc"],
            "issued": context.record["started_utc"],
            "device": {"reference": context.url("device")},
            **values,
        }
    )


def _component(text: str, **value: Any) -> Resource:
    return {"code": {"text": text}, **value}


def _interval(text: str, limits: list[float], unit: str) -> Resource:
    low, high = limits
    return _component(text, valueRange={"low": quantity(low, unit), "high": quantity(high, unit)})


def _full(resource: Resource) -> Resource:
    """The resource without what is not known: FHIR allows no null."""
    return {key: value for key, value in resource.items() if value is not None}
