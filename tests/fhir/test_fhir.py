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
from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.fhir import write, write_fhir
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
    (whole, *areas) = full.summaries
    first, *others = whole.pathways  # the first one has no interval
    others = [replace(item, mean_interval=(item.mean - 0.1, item.mean + 0.2)) for item in others]
    summaries = (replace(whole, pathways=(first, *others)), *areas)
    slide = replace(full.slide, name="Mustermann_Erika.svs")
    return replace(full, heads=heads, slide=slide, summaries=summaries)


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
    kinds = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
    assert kinds == ["DiagnosticReport", "Device", *["Observation"] * len(observations)], (
        "the report is what is seen first"
    )


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
    told = {name: shares[f"P({name})"]["valueQuantity"]["value"] for name in "ABC"}
    assert told == {"A": 0.2, "B": 0.7, "C": 0.1}
    assert by_code["head-risk"]["component"][0]["valueQuantity"]["value"] == 1.4
    assert result.trust is not None
    assert by_code["trust"]["valueCodeableConcept"]["text"] == result.trust.verdict
    for reason in result.trust.reasons:
        assert reason in json.dumps(of_kind(bundle, "DiagnosticReport")[0], ensure_ascii=False)


def number(row: dict[str, Any], text: str) -> Any:
    """The value of the component of that text."""
    (part,) = [part for part in row["component"] if part["code"]["text"] == text]
    return part.get("valueQuantity") or part["valueRange"]


def test_every_number_stands_where_it_belongs(folder: Path, tmp_path: Path) -> None:
    """Held against result.json, component by component: each number here differs from all others."""
    record = json.loads((folder / "result.json").read_text())
    bundle = write_fhir(folder, tmp_path / "out.json")
    by_code = {item["code"]["coding"][0]["code"]: item for item in of_kind(bundle, "Observation")}
    (whole, *_) = record["summaries"]
    assert whole["pathways"]
    for name, row in whole["pathways"].items():
        found = by_code[f"pathway-{name}"]
        unit = record["pathways"]["summary_unit"]
        assert (found["valueQuantity"]["value"], found["valueQuantity"]["unit"]) == (round(row["mean"], 6), unit)
        assert number(found, "Mean z on the common scale")["value"] == round(row["mean_z"], 6)
        assert number(found, "Share of tissue above the threshold")["value"] == round(row["share_above"], 6)
        if row["mean_interval"] is None:
            assert name == next(iter(whole["pathways"]))
            assert all(part["code"]["text"] != "95 % interval" for part in found["component"])
            continue
        limits = number(found, "95 % interval")
        low, high = (round(value, 6) for value in row["mean_interval"])
        assert (limits["low"]["value"], limits["high"]["value"], limits["low"]["unit"]) == (low, high, unit)
        assert low < high
    for head in record["heads"]:
        found = by_code[f"head-{head['name']}"]
        told = number(found, head["value_name"])
        assert (told["value"], told["unit"]) == (round(head["value"], 6), head["value_name"])
        if head["interval"]:
            limits = number(found, "95 % interval")
            assert [limits["low"]["value"], limits["high"]["value"]] == head["interval"]
        else:
            assert all(part["code"]["text"] != "95 % interval" for part in found["component"])
    assert any(head["interval"] for head in record["heads"]) and not all(head["interval"] for head in record["heads"])


def test_how_far_each_score_was_checked_is_told(folder: Path, result: Result, tmp_path: Path) -> None:
    bundle = write_fhir(folder, tmp_path / "out.json")
    by_code = {item["code"]["coding"][0]["code"]: item for item in of_kind(bundle, "Observation")}
    assert result.validation is not None
    told = {f.name: by_code[f"pathway-{f.name}"].get("note") for f in result.validation.pathways}
    for fact in result.validation.pathways:
        wanted = None if fact.validated else [{"text": "This pathway is not validated."}]
        assert told[fact.name] == wanted
    unknown = stored(replace(result, validation=None), tmp_path / "unknown")
    for item in of_kind(write_fhir(unknown, tmp_path / "u.json"), "Observation"):
        if item["code"]["coding"][0]["code"].startswith("pathway-"):
            assert item["note"] == [{"text": "How well this score holds was not measured."}]


def test_warnings_times_and_versions_are_those_of_the_run(folder: Path, result: Result, tmp_path: Path) -> None:
    bundle = write_fhir(folder, tmp_path / "out.json")
    (device,) = of_kind(bundle, "Device")
    versions = [item["value"] for item in device["version"]]
    assert versions == [result.software["stamp-deploy"], f"bundle.json SHA-256 {result.bundle.sha256}"]
    for item in (*of_kind(bundle, "DiagnosticReport"), *of_kind(bundle, "Observation")):
        assert (item["effectiveDateTime"], item["issued"]) == (result.started_utc, result.started_utc)
    (trust,) = [one for one in of_kind(bundle, "Observation") if one["code"]["coding"][0]["code"] == "trust"]
    assert result.trust is not None and result.warnings
    assert [note["text"] for note in trust["note"]] == [*result.trust.reasons, *result.warnings]
    (code,) = trust["valueCodeableConcept"]["coding"]
    assert code["code"] == f"trust-{result.trust.verdict}"


def test_codes_and_units_are_those_that_a_server_knows(folder: Path, tmp_path: Path) -> None:
    """A number without a unit has UCUM's 1; what people read beside it says what it is."""
    record = json.loads((folder / "result.json").read_text())
    bundle = write_fhir(folder, tmp_path / "out.json")
    (report,) = of_kind(bundle, "DiagnosticReport")
    (device,) = of_kind(bundle, "Device")
    (category,) = report["category"][0]["coding"]
    assert category == {"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "PAT"}
    assert device["note"] == [{"text": record["research_use"]}]
    assert report["conclusion"].startswith(f"{record['research_use']} Trust: ")
    assert bundle["timestamp"] == record["started_utc"]
    observations = {item["code"]["coding"][0]["code"]: item for item in of_kind(bundle, "Observation")}
    assert {f"pathway-{name}" for name in record["pathways"]["names"]} <= set(observations)
    for item in observations.values():
        parts = [item, *item.get("component", [])]
        numbers = [part["valueQuantity"] for part in parts if "valueQuantity" in part]
        numbers += [part["valueRange"][end] for part in parts if "valueRange" in part for end in ("low", "high")]
        assert {(one["system"], one["code"]) for one in numbers} <= {("http://unitsofmeasure.org", "1")}
    subtype = observations["head-subtype"]
    assert [number(subtype, f"P({name})")["unit"] for name in "ABC"] == ["probability"] * 3
    (call,) = subtype["valueCodeableConcept"]["coding"]
    assert (call["code"], call["display"]) == ("call-B", "B")


def test_a_code_holds_no_blank(result: Result, tmp_path: Path) -> None:
    """FHIR's codes hold single blanks at most, and systems that index them trip over any."""
    assert result.trust is not None
    silent = replace(result, trust=replace(result.trust, verdict="not judged"))
    bundle = write_fhir(stored(silent, tmp_path / "silent"), tmp_path / "out.json")
    codes = [item["code"]["coding"][0]["code"] for item in of_kind(bundle, "Observation")]
    verdicts = [one["valueCodeableConcept"]["coding"][0]["code"] for one in of_kind(bundle, "Observation")
                if "valueCodeableConcept" in one]  # fmt: skip
    assert "trust-not-judged" in verdicts
    assert not any(" " in code for code in (*codes, *verdicts))


def test_another_run_of_the_slide_is_another_report(folder: Path, result: Result, tmp_path: Path) -> None:
    """A slide that is scored again must not be taken for what was sent before: the server would leave it out."""
    before = write_fhir(folder, tmp_path / "a.json")
    for number_of, changes in enumerate(
        ({"started_utc": "2026-11-25T02:00:00+00:00"}, {"config_sha256": "d1" * 32},
         {"bundle": replace(result.bundle, sha256="b1" * 32)}, {"slide": replace(result.slide, sha256="5b" * 32)})
    ):  # fmt: skip
        again = stored(replace(result, **changes), tmp_path / f"again-{number_of}")
        after = write_fhir(again, tmp_path / "b.json")
        one, two = ({entry["request"]["ifNoneExist"] for entry in bundle["entry"]} for bundle in (before, after))
        assert not one & two, changes
        one, two = ({entry["fullUrl"] for entry in bundle["entry"]} for bundle in (before, after))
        assert not one & two, "a UUID names one thing"


def test_a_figure_of_nothing_is_a_figure(result: Result, tmp_path: Path) -> None:
    """No tissue above the threshold, and a mean on the centre of the scale, are told; what is not known is not."""
    (whole, *areas) = result.summaries
    first, second, *others = whole.pathways
    pathways = (replace(first, mean_z=0.0, share_above=0.0), replace(second, mean_z=None, share_above=None), *others)
    summaries = (replace(whole, pathways=pathways), *areas)
    bundle = write_fhir(stored(replace(result, summaries=summaries), tmp_path / "zero"), tmp_path / "out.json")
    by_code = {item["code"]["coding"][0]["code"]: item for item in of_kind(bundle, "Observation")}
    zero, unknown = (by_code[f"pathway-{item.name}"] for item in (first, second))
    for text in ("Mean z on the common scale", "Share of tissue above the threshold"):
        assert number(zero, text)["value"] == 0
        assert all(part["code"]["text"] != text for part in unknown["component"])


def test_a_folder_that_is_not_finished_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "half"
    copy.mkdir()
    (copy / "result.json").write_bytes((folder / "result.json").read_bytes())
    with pytest.raises(UsageError, match="no finished result"):
        write_fhir(copy, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_what_breaks_the_definitions_is_not_written(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    real = write.device

    def wrong(context: Any) -> dict[str, Any]:
        return real(context) | {"status": ["active"]}

    monkeypatch.setattr(write, "device", wrong)
    with pytest.raises(DataError, match=r"no valid FHIR: .*status") as caught:
        write_fhir(folder, tmp_path / "out.json")
    assert caught.value.path == folder and not (tmp_path / "out.json").exists()


def test_a_result_without_summaries_gives_its_means(result: Result, tmp_path: Path) -> None:
    """Schema version 1 had no summaries."""
    plain = stored(replace(result, summaries=()), tmp_path / "plain")
    bundle = write_fhir(plain, tmp_path / "out.json")
    means = {item["code"]["coding"][0]["code"]: item["valueQuantity"]["value"]
             for item in of_kind(bundle, "Observation") if "valueQuantity" in item}  # fmt: skip
    expected = {f"pathway-{name}": round(row["mean"], 6) for name, row in result.summary().items()}
    assert means == expected and len(set(expected.values())) == len(result.pathway_names)


def test_sent_twice_it_creates_nothing(folder: Path, tmp_path: Path) -> None:
    first = write_fhir(folder, tmp_path / "a.json")
    write_fhir(folder, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert first["type"] == "transaction"  # all of it or nothing; a "collection" would be refused or stored whole
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
    assert report["basedOn"] == [{"reference": given["basedOn"]}]
    for item in of_kind(bundle, "Observation"):
        assert item["subject"]["reference"] == "Patient/123"
        assert item["specimen"]["reference"] == "Specimen/s.9"
        assert item["basedOn"][0]["reference"] == given["basedOn"]


@pytest.mark.parametrize(
    "value",
    ["123", "Specimen/1", "Patient/", "Patient/a b", "Erika Mustermann", "Patient/1|2", "https://a b/Patient/1"],
)
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
