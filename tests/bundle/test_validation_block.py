"""Schema version 2: what a bundle says of its scores, strict in every value; version 1 loads and says what it lacks."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundle_factory import GLOBAL_FACTOR, make_bundle

from stamp_deploy.bundle import load_bundle
from stamp_deploy.bundle.triton import encoder_config
from stamp_deploy.bundle.validation_block import LACKS_GLOBAL
from stamp_deploy.checks.inspect_bundle import describe_bundle
from stamp_deploy.checks.verify import verify_path
from stamp_deploy.engine import load_engine
from stamp_deploy.engine.golden import check_engine, load_golden
from stamp_deploy.errors import BundleError
from stamp_deploy.validation import QUANTILES, Scale, Validation

PATHWAYS = ("HYPOXIA", "ANGIOGENESIS")


def entry(name: str, **other: Any) -> dict[str, Any]:
    quantiles = {q: float(i) for i, q in enumerate(QUANTILES)}
    value = {
        "name": name, "r": 0.5, "r_low": 0.4, "r_high": 0.6, "sections": 4, "patients": 3, "frozen_r": 0.3,
        "random_sets_r": None, "features_r": 0.2, "depth_r": None, "global_r": 0.4, "predictions": quantiles,
        "targets": quantiles, "global_predictions": None, "scale": {"centre": 0.1, "spread": 2.0}, "scale_global": None,
    }  # fmt: skip
    return value | other


def block(**other: Any) -> dict[str, Any]:
    value = {
        "unit": "z within section (ucell)", "interval_over": "patients", "lacks": ["no control with random gene sets"],
        "pathways": [entry(name) for name in PATHWAYS],
    }  # fmt: skip
    return value | other


def make(path: Path, validation: Any, **other: Any) -> Path:
    return make_bundle(path, pathways=PATHWAYS, facts={"validation": validation}, **other)


def test_what_is_written_comes_back_as_records(tmp_path: Path) -> None:
    bundle = load_bundle(make(tmp_path / "b", block(), global_scores=True))
    assert bundle.schema_version == 2
    found = bundle.validation
    first = found.pathways[0]
    assert (found.unit, first.name, first.r, first.r_low, first.patients) == (block()["unit"], "HYPOXIA", 0.5, 0.4, 3)
    assert first.random_sets_r is None and first.depth_r is None and first.scale_global is None
    assert first.scale == Scale(0.1, 2.0) and first.scale.spread == 2.0
    assert first.predictions["p05"] == 2.0 and first.global_predictions == {}
    assert first.validated
    assert bundle.lacks == (
        "no control with random gene sets",
        "it has no reference of what its model knows: whether a slide is like the training slides is not judged",
    )
    assert describe_bundle(bundle.path).facts["validated"] == 2
    assert Validation.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("validation", [None, block()], ids=["nothing", "a block"])
def test_a_bundle_of_version_2_says_where_it_has_no_read_out_that_slides_share(tmp_path: Path, validation: Any) -> None:
    assert LACKS_GLOBAL in load_bundle(make(tmp_path / "without", validation)).lacks
    assert LACKS_GLOBAL not in load_bundle(make(tmp_path / "with", validation, global_scores=True)).lacks


def test_a_bundle_of_version_1_loads_and_says_what_it_lacks(tmp_path: Path) -> None:
    path = make(tmp_path / "b", None)
    document = json.loads((path / "bundle.json").read_text())
    for key in ("outputs", "validation", "trust", "twins"):
        del document[key]
    (path / "bundle.json").write_text(json.dumps(document | {"schema_version": 1}))
    bundle = load_bundle(path)
    assert (bundle.schema_version, bundle.outputs, bundle.trust_file, bundle.twins) == (
        1,
        ("embedding", "pathways"),
        None,
        (),
    )
    assert [p.name for p in bundle.validation.pathways] == list(PATHWAYS)
    assert not any(p.validated or p.r is not None for p in bundle.validation.pathways)
    said = " ".join(bundle.lacks)
    for word in ("how its scores were validated", "comparable across slides", "version 1", "no reference"):
        assert word in said
    assert all(f"not known: {what}" in verify_path(path) for what in bundle.lacks)
    told = describe_bundle(path).to_text()
    assert "schema version 1" in told and "0 with a held-out r, 0 validated" in told and "slides are not judged" in told
    assert all(what in told for what in bundle.lacks)
    assert check_engine(bundle, load_engine(bundle, "onnxruntime", batch=4))


def first(**other: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda value: value["pathways"][0].update(other)


BROKEN: tuple[tuple[Callable[[dict[str, Any]], Any], str], ...] = (
    (lambda v: v.update(unit=""), "unit"),
    (lambda v: v.update(surprise=1), "surprise"),
    (lambda v: v.update(interval_over="tiles"), "patients, blocks of space or sections"),
    (lambda v: v.update(lacks="much"), "sentences"),
    (lambda v: v.update(lacks=["a\nb"]), "printable"),
    (lambda v: v["pathways"].pop(), "one entry per pathway"),
    (lambda v: v["pathways"].reverse(), "out of order"),
    (first(r=1.5), "r of 'HYPOXIA' must be -1 to 1"),
    (first(r=True), "not a finite number"),
    (first(r="0.5"), "not a finite number"),
    (first(sections=-1), "sections"),
    (first(sections=0), "on no section"),
    (first(patients=2.0), "patients"),
    (first(r_low=None), "incomplete"),
    (first(r=None), "incomplete"),
    (first(r_low=0.7), "upside down"),
    (first(r_low=0.4, r_high=None), "incomplete"),
    (first(predictions={q: float(i == 4) for i, q in enumerate(QUANTILES)}), "do not ascend"),
    (lambda v: v["pathways"][1].update(name=""), "out of order"),
    (first(frozen_r=-2), "frozen_r"),
    (first(global_r=2), "global_r"),
    (first(predictions={"min": 0.0}), "must hold the quantiles"),
    (first(targets={q: -float(i) for i, q in enumerate(QUANTILES)}), "do not ascend"),
    (first(targets=[1, 2]), "must hold the quantiles"),
    (first(scale={"centre": 0.0, "spread": 0.0}), "spread"),
    (first(scale={"centre": 0.0}), "centre and spread"),
    (first(scale_global={"centre": 1e30, "spread": 1.0}), "centre"),
    (first(extra=1), "unknown key 'extra'"),
    (lambda v: v["pathways"][1].pop("depth_r"), "lacks 'depth_r'; null stands for what was not measured"),
)


@pytest.mark.parametrize(("damage", "words"), BROKEN)
def test_every_rule_of_the_block_is_checked(
    tmp_path: Path, damage: Callable[[dict[str, Any]], Any], words: str
) -> None:
    value = copy.deepcopy(block())
    damage(value)
    with pytest.raises(BundleError) as caught:
        make(tmp_path / "b", value)
    assert words in caught.value.cause


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"outputs": ["pathways", "embedding"]}, "'outputs' must be"),
        ({"outputs": ["embedding", "pathways", "other"]}, "'outputs' must be"),
        ({"outputs": ["embedding", "pathways", "pathways_global"]}, "the outputs are"),
        ({"trust": "trust.npz"}, "not among 'files'"),
        ({"trust": 3}, "not among 'files'"),
        ({"validation": []}, "neither an object nor null"),
    ],
)
def test_every_new_key_is_checked(tmp_path: Path, facts: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError) as caught:
        make_bundle(tmp_path / "b", facts=facts)
    assert words in caught.value.cause


def test_keys_of_version_2_may_not_be_missing_nor_stand_in_version_1(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "b")
    document = json.loads((path / "bundle.json").read_text())
    (path / "bundle.json").write_text(json.dumps({k: v for k, v in document.items() if k != "validation"}))
    with pytest.raises(BundleError, match="lacks 'validation'"):
        load_bundle(path)
    (path / "bundle.json").write_text(json.dumps(document | {"schema_version": 1}))
    with pytest.raises(BundleError, match="unknown key"):
        load_bundle(path)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_engines_give_the_read_out_that_slides_share(tmp_path: Path, name: str) -> None:
    if name == "openvino":
        pytest.importorskip("openvino")
    bundle = load_bundle(make_bundle(tmp_path / "b", global_scores=True, golden_tiles=9))
    tiles, expected = load_golden(bundle)
    engine = load_engine(bundle, name, batch=4, precision="fp32")
    parts = list(engine.stream([tiles[:4], tiles[4:8], tiles[8:]]))
    found = np.concatenate([part.pathways_global for part in parts if part.pathways_global is not None])
    np.testing.assert_allclose(found, expected.pathways_global, atol=1e-5)
    np.testing.assert_allclose(found, expected.pathways * GLOBAL_FACTOR, atol=1e-5)
    report = check_engine(bundle, engine)
    assert report and "HYPOXIA (global)" in report.spearman


def test_parity_refuses_an_engine_that_is_wrong_in_the_second_read_out_alone(tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path / "b", global_scores=True))
    golden = bundle.golden / "pathways_global.npy"
    values = np.load(golden)
    np.save(golden, values + np.float32(0.1))
    document = json.loads((bundle.path / "bundle.json").read_text())
    from stamp_deploy.bundle import write_bundle_json

    again = write_bundle_json(bundle.path, {k: v for k, v in document.items() if k not in ("files", "schema_version")})
    from stamp_deploy.engine.registry import open_engine

    report = check_engine(again, open_engine(again, "onnxruntime", batch=4))
    assert not report and any("pathway_max_abs" in failure for failure in report.failures)


def test_triton_names_the_third_output(tmp_path: Path) -> None:
    both = encoder_config(load_bundle(make_bundle(tmp_path / "b", global_scores=True)), 8, 1, "gpu")
    assert both.count('{ name: "pathways') == 2 and '"pathways_global" data_type: TYPE_FP32 dims: [ 4 ]' in both
    assert both.count("label_filename") == 2
    one = encoder_config(load_bundle(make_bundle(tmp_path / "a")), 8, 1, "gpu")
    assert "pathways_global" not in one
