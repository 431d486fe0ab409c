"""Every value in bundle.json that the run time uses has a range, and the error names the value."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from support.bundle_factory import make_bundle

from stamp_deploy.bundle import load_bundle
from stamp_deploy.bundle.schema import TISSUE_RANGES, validate
from stamp_deploy.bundle.strict_json import parse_json
from stamp_deploy.errors import BundleError
from stamp_deploy.tissue import TissueRule
from stamp_deploy.units import MAX_MPP, MIN_MPP


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    return json.loads((make_bundle(tmp_path_factory.mktemp("b") / "bundle") / "bundle.json").read_text())


VALUES = [
    ({"mpp": MIN_MPP * 0.99}, "mpp must be"),
    ({"mpp": MAX_MPP * 1.01}, "mpp must be"),
    ({"mpp": float("nan")}, "mpp must be"),
    ({"mpp": 10**400}, "mpp must be"),
    ({"mean": [0.5, 0.5, 1.5]}, "the mean must be 0 to 1"),
    ({"mean": [0.5, 0.5, -0.1]}, "the mean must be 0 to 1"),
    ({"mean": [0.5, 0.5, 10**400]}, "the mean must be 0 to 1"),
    ({"mean": [0.5, 0.5, True]}, "not a finite number"),
    ({"std": [0.2, 0.2, 2.0]}, "the std must be 0 to 1"),
    ({"std": [0.2, 0.2, 1e-9]}, "positive"),
    ({"tile_px": 4097}, "tile_px"),
    ({"tile_px": 10**400}, "tile_px"),
    ({"embedding_dim": 65_537}, "embedding_dim"),
    ({"pathways": ["A", " B"]}, "printable text"),
    ({"pathways": ["A", "B\x1b[2J"]}, "printable text"),
    ({"pathways": ["A", "B\nC"]}, "printable text"),
    ({"pathways": ["A", "B" * 201]}, "longer than 200"),
    ({"pathways": ["A", ""]}, "printable text"),
    ({"pathways": ["A", 3]}, "printable text"),
    ({"pfm": {"id": "x\ny", "licence": "z"}}, "id of 'pfm'"),
    ({"pfm": {"id": "x", "licence": 3}}, "licence of 'pfm'"),
    ({"created_utc": "yesterday"}, "created_utc"),
    ({"tissue": {"min_fraction": 1.01}}, "'min_fraction' of the tissue rule must be 0 to 1"),
    ({"tissue": {"min_fraction": -0.01}}, "'min_fraction' of the tissue rule"),
    ({"tissue": {"min_fraction": None}}, "'min_fraction' of the tissue rule"),
    ({"tissue": {"min_fraction": True}}, "'min_fraction' of the tissue rule"),
    ({"tissue": {"min_fraction": "0.5"}}, "'min_fraction' of the tissue rule"),
    ({"tissue": {"max_px": 1_000_000}}, "'max_px' of the tissue rule must be 256 to 8192"),
    ({"tissue": {"max_px": 1024.5}}, "not a whole number"),
    ({"tissue": {"mask_mpp": 0.001}}, "'mask_mpp' of the tissue rule"),
    ({"tissue": {"blur_um": 1e9}}, "'blur_um' of the tissue rule"),
    ({"tissue": {"close_um": 1e9}}, "'close_um' of the tissue rule"),
    ({"tissue": {"close_um": -1}}, "'close_um' of the tissue rule"),
    ({"tissue": {"min_saturation": 0.5, "max_saturation": 0.1}}, "upside down"),
    ({"tissue": {"exclude_ink": 1}}, "'exclude_ink' of the tissue rule"),
    ({"tissue": {"method": ["x"]}}, "'method' of the tissue rule"),
    ({"tissue": {"not yet known": 1e300}}, "'not yet known' of the tissue rule"),
    ({"input_range": {"mpp": [0.5, 0.25]}}, "upside down"),
    ({"input_range": {"mpp": [0.5]}}, r"\[low, high\]"),
    ({"input_range": {"mpp": [-1, 0.5]}}, "validated mpp"),
    ({"input_range": {"scores": [0, 10**400]}}, "validated scores"),
    ({"input_range": {"scores": [0, 1.2e9]}}, "validated scores"),
    ({"pathways": [f"P{i}" for i in range(65_537)]}, "1 to 65536 of them"),
    ({"heads": [{}] * 257}, "more than 256 heads"),
    ({"files": {f"f{i}": {"sha256": "0" * 64, "size": 1} for i in range(4097)}}, "must list 1 to 4096 files"),
    ({"heads": [{}]}, "a head lacks"),
    ({"heads": ["x"]}, "not an object"),
]


@pytest.mark.parametrize(("change", "message"), VALUES, ids=[str(change)[:50] for change, _ in VALUES])
def test_values_out_of_range(document, change, message):
    validate(document)
    with pytest.raises(BundleError, match=message) as caught:
        validate({**document, **change})
    assert len(str(caught.value)) < 400


HEAD_VALUES = [
    (0, {"temperature": 1e-9}, "temperature of head 'msi' must be 0.001 to 1000"),
    (0, {"temperature": 1e9}, "temperature of head 'msi'"),
    (0, {"temperature": 10**400}, "temperature of head 'msi'"),
    (0, {"thresholds": [0.5, 0.6]}, "are 2 and must be none or one"),
    (0, {"thresholds": [1.5]}, "threshold of head 'msi' must be 0 to 1"),
    (0, {"thresholds": [10**400]}, "threshold of head 'msi'"),
    (0, {"abstain": [0.4, 1.5]}, "abstention band of head 'msi' must be 0 to 1"),
    (0, {"abstain": [-0.1, 0.5]}, "abstention band of head 'msi'"),
    (0, {"classes": ["A", "A\x07"]}, "printable text"),
    (0, {"more": 1}, "a head holds an unknown key 'more'"),
    (1, {"thresholds": [0.5]}, "are 1 and must be none or 3"),
    (1, {"thresholds": [0.5, 0.5, 2.0]}, "threshold of head 'subtype' must be 0 to 1"),
    (2, {"thresholds": [1.0, 0.0]}, "ascending"),
    (2, {"thresholds": [0.0, 0.0]}, "ascending"),
    (2, {"thresholds": [0.0], "classes": ["low", "middle", "high"]}, "must be 2 for 3 risk groups"),
    (1, {"classes": [f"c{i}" for i in range(1025)]}, "0 to 1024 of them"),
    (2, {"thresholds": [float(i) for i in range(1025)]}, "more than 1024"),
    (2, {"thresholds": [1e300]}, "threshold of head 'survival'"),
]


@pytest.mark.parametrize(
    ("which", "change", "message"), HEAD_VALUES, ids=[str(change)[:50] for _, change, _ in HEAD_VALUES]
)
def test_values_of_a_head(document, which, change, message):
    heads = [dict(head) for head in document["heads"]]
    heads[which] = {**heads[which], **change}
    with pytest.raises(BundleError, match=message):
        validate({**document, "heads": heads})


@pytest.mark.parametrize(
    "good",
    [
        {"heads": []},
        {"tissue": {}},
        {"tissue": TissueRule().to_dict()},
        {"input_range": {"mpp": [0.3, 0.7], "scores": None, "more": {"of": "it"}}},
        {"mean": [0, 0, 0], "std": [1, 1, 1]},
        {"mpp": MIN_MPP},
        {"mpp": MAX_MPP},
        {"pathways": ["MHC-II (ä, β) 50 %"]},
    ],
    ids=str,
)
def test_values_that_are_allowed(document, good):
    validate({**document, **good})


def test_every_range_is_of_a_real_number_of_the_rule_and_holds_its_default():
    defaults = {field.name: field.default for field in fields(TissueRule)}
    for name, (low, high) in TISSUE_RANGES.items():
        assert low <= defaults[name] <= high


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"tissue": {"min_fraction": ' + "9" * 400 + "}}", "a number of 400 digits"),
        ('{"deep": [[{"x": -' + "9" * 400 + "}]]}", "a number of 401 digits"),
        ('{"details": 1e400}', "no one measures"),
        ('{"details": -1e400}', "no one measures"),
        ('{"details": 0.' + "1" * 400 + "}", "no one measures"),
        ('{"details": Infinity}', "holds Infinity"),
    ],
    ids=["400 digits", "nested", "1e400", "-1e400", "long fraction", "infinity"],
)
def test_numbers_of_hundreds_of_digits_are_refused_wherever_they_stand(text, message):
    with pytest.raises(BundleError, match=message):
        parse_json(text.encode())


@pytest.mark.parametrize("name", ["a run", "run"])
def test_a_training_run_is_told_to_be_exported(tmp_path, name):
    run = tmp_path / name
    run.mkdir()
    (run / "run.json").write_text("{}")
    quoted = "'a run'" if " " in name else name
    with pytest.raises(BundleError, match=f"export it first: stamp-deploy export {quoted} -o BUNDLE") as caught:
        load_bundle(run)
    assert caught.value.exit_code == 5


def test_a_result_is_no_bundle(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(BundleError, match="this is a result and holds") as caught:
        load_bundle(tmp_path)
    assert "scored with" in caught.value.remedy
