"""A result as FHIR: valid, preliminary, complete, without a patient's name, and the same when it is made again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.cli_runner import Runner, runner  # noqa: F401 - a fixture
from support.result_factory import full_result, make_head, stored

from stamp_deploy.cli import EXTRA_OF
from stamp_deploy.errors import UsageError
from stamp_deploy.fhir import write_fhir
from stamp_deploy.provenance import RESEARCH_USE
from stamp_deploy.result import Result

pytest.importorskip("fhir.resources")


@pytest.fixture(scope="module")
def result() -> Result:
    full = full_result()
    heads = (
        make_head("msi"),
        make_head("unsure", call=None, abstained=True, cause="its value lies in the abstention band"),
        make_head("subtype", kind="multiclass", classes=("A", "B", "C"), probabilities=(0.2, 0.7, 0.1), call="B"),
        make_head("risk", kind="survival", classes=("risk",), probabilities=(1.4,), call=None, interval=None),
    )
    return replace(full, heads=heads, slide=replace(full.slide, name="Mustermann_Erika.svs"))


@pytest.fixture(scope="module")
def folder(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fhir") / "result"
    stored(result, place)
    return place


def of_kind(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]


def test_the_bundle_is_valid_and_preliminary(folder: Path, tmp_path: Path) -> None:
    from fhir.resources.R4B.bundle import Bundle

    write_fhir(folder, tmp_path / "out.json")
    text = (tmp_path / "out.json").read_text()
    Bundle.model_validate_json(text)
    bundle = json.loads(text)
    (report,) = of_kind(bundle, "DiagnosticReport")
    observations = of_kind(bundle, "Observation")
    assert {item["status"] for item in (report, *observations)} == {"preliminary"}
    assert RESEARCH_USE in report["conclusion"]
    urls = {entry["fullUrl"]: entry["resource"]["resourceType"] for entry in bundle["entry"]}
    assert [urls[item["reference"]] for item in report["result"]] == ["Observation"] * len(observations)
    assert all(urls[item["device"]["reference"]] == "Device" for item in observations)
    assert len(urls) == len(bundle["entry"]), "each resource has an address of its own"


def test_every_figure_is_there(folder: Path, result: Result, tmp_path: Path) -> None:
    bundle = write_fhir(folder, tmp_path / "out.json")
    by_code = {item["code"]["coding"][0]["code"]: item for item in of_kind(bundle, "Observation")}
    for item in result.summaries[0].pathways:
        row = by_code[f"pathway-{item.name}"]
        assert row["valueQuantity"]["value"] == pytest.approx(item.mean, abs=1e-6)
        facts = next(fact for fact in result.validation.pathways if fact.name == item.name)  # type: ignore[union-attr]
        assert ("note" in row) == (not facts.validated)
    assert by_code["head-msi"]["valueCodeableConcept"]["text"] == "MSI-H"
    unsure = by_code["head-unsure"]
    assert "valueCodeableConcept" not in unsure
    assert "abstention band" in unsure["dataAbsentReason"]["text"]
    shares = {part["code"]["text"]: part for part in by_code["head-subtype"]["component"]}
    assert shares["P(B)"]["valueQuantity"]["value"] == 0.7
    assert by_code["head-risk"]["component"][0]["valueQuantity"]["value"] == 1.4
    assert result.trust is not None
    assert by_code["trust"]["valueCodeableConcept"]["text"] == result.trust.verdict
    for reason in result.trust.reasons:
        assert reason in json.dumps(of_kind(bundle, "DiagnosticReport")[0], ensure_ascii=False)


def test_sent_twice_it_creates_nothing(folder: Path, tmp_path: Path) -> None:
    first = write_fhir(folder, tmp_path / "a.json")
    write_fhir(folder, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    conditions = [entry["request"]["ifNoneExist"] for entry in first["entry"]]
    assert len(set(conditions)) == len(conditions)
    for entry, condition in zip(first["entry"], conditions, strict=True):
        (identifier,) = entry["resource"]["identifier"]
        assert condition == f"identifier={identifier['system']}|{identifier['value']}"
        assert entry["request"] == {**entry["request"], "method": "POST", "url": entry["resource"]["resourceType"]}


def test_the_slides_name_stays_here(folder: Path, tmp_path: Path) -> None:
    write_fhir(folder, tmp_path / "out.json")
    text = (tmp_path / "out.json").read_text()
    assert "Mustermann" not in text
    assert str(folder.parent) not in text


def test_references_of_the_hospital(folder: Path, tmp_path: Path) -> None:
    given = {
        "subject": "Patient/123",
        "specimen": "Specimen/s.9",
        "basedOn": "https://fhir.example/r4/ServiceRequest/7",
    }
    bundle = write_fhir(folder, tmp_path / "out.json", given)
    (report,) = of_kind(bundle, "DiagnosticReport")
    assert report["subject"]["reference"] == "Patient/123"
    assert [item["reference"] for item in report["specimen"]] == ["Specimen/s.9"]
    for item in of_kind(bundle, "Observation"):
        assert item["subject"]["reference"] == "Patient/123"
        assert item["specimen"]["reference"] == "Specimen/s.9"
        assert item["basedOn"][0]["reference"] == given["basedOn"]


@pytest.mark.parametrize("value", ["123", "Specimen/1", "Patient/", "Patient/a b", "Erika Mustermann", "Patient/1|2"])
def test_what_is_no_reference_is_refused(folder: Path, tmp_path: Path, value: str) -> None:
    with pytest.raises(UsageError, match="is no reference to a Patient"):
        write_fhir(folder, tmp_path / "out.json", {"subject": value})
    assert not (tmp_path / "out.json").exists()


def test_the_command(runner: Runner, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    done = runner("fhir", folder, "-o", tmp_path / "out.json", "--patient", "Patient/1")
    assert (done.code, done.err) == (0, "")
    assert "preliminary" in done.out
    assert runner("fhir", tmp_path, "-o", tmp_path / "no.json").code == 2
    assert EXTRA_OF["fhir"] == "fhir"
