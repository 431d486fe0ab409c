"""What the cache calls its entries: everything that could change one is in its name, and nothing else."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundle_factory import make_bundle

from stamp_deploy.bundle import Bundle, load_bundle
from stamp_deploy.engine import graph_forms, machine, mixed_precision
from stamp_deploy.engine.cache import cache_dir, key_of, read_entry, staged_folder, write_entry
from stamp_deploy.engine.cuda import Gpu
from stamp_deploy.engine.graph_forms import PLAIN, Form, forms_of, pick_form, remember_failure
from stamp_deploy.engine.mixed_precision import _as_it_is, _converted_folder, convert, convert_file
from stamp_deploy.errors import ParityError

pytestmark = pytest.mark.usefixtures("own_cache")

FORMS = (
    Form("plain"), Form("plain, fused", fused=True), Form("of four", batch=4), Form("of five", batch=5),
    Form("gelu", low=frozenset({"Gelu"})), Form("norms", low=frozenset({"Gelu", "LayerNormalization"})),
)  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_bundle(tmp_path_factory.mktemp("keys") / "bundle", golden_tiles=10))


def test_a_name_is_of_what_is_said_and_not_of_its_order() -> None:
    assert key_of({"a": 1, "b": [2]}, "x") == key_of({"b": [2], "a": 1}, "x")
    keys = [key_of(number, "x") for number in range(3000)]
    assert len(set(keys)) == 3000 and {len(key) for key in keys} == {24}
    assert key_of("a", "b") != key_of("ab") != key_of(["a", "b"])


def test_what_the_cache_makes_is_the_users_alone(tmp_path: Path) -> None:
    """A plan is machine code in all but name: nobody else may put one there, or read what a hospital's model is."""
    umask = os.umask(0)
    try:
        folder = cache_dir()
        assert write_entry(folder / "verdicts" / "one.json", {"a": 1})
        with staged_folder(folder / "plans" / "p") as staging:
            assert stat.S_IMODE(staging.stat().st_mode) == 0o700
        made = [folder, folder / "verdicts", folder / "plans" / "p"]
        assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o700] * 3
    finally:
        os.umask(umask)
    assert read_entry(folder / "verdicts" / "one.json") == {"a": 1}


def test_a_form_is_known_by_all_that_it_changes(bundle: Bundle) -> None:
    keys = [str(form.key()) for form in FORMS]
    assert len(set(keys)) == len(FORMS)
    assert [form.changes for form in FORMS] == [False] + [True] * (len(FORMS) - 1)
    assert [_as_it_is(bundle, "fp32", form) for form in FORMS] == [True] + [False] * (len(FORMS) - 1)
    assert replace(FORMS[1], name="another word").key() == FORMS[1].key()


def test_a_failure_is_of_a_bundle_an_engine_a_precision_a_form_and_a_machine(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (bundle, "tensorrt", "fp16", FORMS[2])
    others = [
        (replace(bundle, sha256="0" * 64), *given[1:]), (bundle, "tensorrt-rtx", *given[2:]),
        (*given[:2], "bf16", given[3]), (*given[:3], FORMS[3]), (*given[:3], FORMS[4]),
    ]  # fmt: skip
    paths = [graph_forms._failed(*given), *(graph_forms._failed(*other) for other in others)]
    assert graph_forms._failed(*given) == paths[0]
    monkeypatch.setattr(machine, "machine_facts", lambda: {"gpus": ["another"]})
    paths.append(graph_forms._failed(*given))
    assert len(set(paths)) == len(paths) == 7


def test_a_failure_of_the_future_counts_for_nothing(bundle: Bundle) -> None:
    """A clock that was wrong must not keep a fast form out for years."""
    forms = FORMS[1:3]
    assert remember_failure(bundle, "tensorrt", "fp16", forms[0])
    assert pick_form(bundle, "tensorrt", "fp16", forms) == (forms[1], False)
    path = graph_forms._failed(bundle, "tensorrt", "fp16", forms[0])
    for entry in ({"failed_unix": time.time() + 1e6}, {"failed_unix": "today"}, {}):
        write_entry(path, entry)
        assert pick_form(bundle, "tensorrt", "fp16", forms) == (forms[0], True)
    assert pick_form(replace(bundle, precision="fp16"), "tensorrt", "fp16", forms) == (PLAIN, False)


@pytest.mark.parametrize(
    ("version", "fuses"),
    [("1.24.4", False), ("1.9.1", False), ("1.25.0", True), ("1.25", True), ("1.100.0", True), ("2.0.0", True)],
)
def test_attention_is_fused_from_one_version_on(version: str, fuses: bool) -> None:
    forms = forms_of("onnxruntime-cuda", "fp16", 8, version)
    assert any(form.fused for form in forms) == fuses and forms[-1] == PLAIN
    assert [form.fused for form in forms_of("onnxruntime-cuda", "fp32", 8, version)] == [True, False][not fuses :]


def test_a_converted_encoder_is_of_a_bundle_a_precision_a_form_and_two_programs(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [_converted_folder(bundle, precision, form) for precision in ("fp16", "bf16") for form in FORMS]
    folders.append(_converted_folder(replace(bundle, sha256="0" * 64), "fp16", FORMS[0]))
    monkeypatch.setattr(mixed_precision.metadata, "version", lambda name: "99.0")
    folders.append(_converted_folder(bundle, "fp16", FORMS[0]))
    monkeypatch.setattr(mixed_precision, "CONVERTER_VERSION", 99)
    folders.append(_converted_folder(bundle, "fp16", FORMS[0]))
    assert len(set(folders)) == len(folders) == 2 * len(FORMS) + 3


GPU = Gpu(0, "GPU", "9.0", 1 << 30, "13.0")


def test_what_a_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "driver_build", lambda: "build 1")
    monkeypatch.setattr(machine, "library_versions", lambda: {"libcudnn.so.9": 91})
    monkeypatch.setattr(machine, "visible_gpus", lambda: (GPU,))
    with_gpu = machine.machine_facts()
    assert with_gpu["gpus"] == [["GPU", "9.0", "13.0", "build 1"]] and with_gpu["libraries"] == {"libcudnn.so.9": 91}
    monkeypatch.setattr(machine, "visible_gpus", lambda: ())
    without = machine.machine_facts()
    assert (without["gpus"], without["libraries"]) == ([], {})
    name, flags = without["processor"]
    assert name == machine.this_processor().name and flags == sorted(machine.this_processor().flags)
    assert without["packages"]["numpy"] == np.__version__
    assert {"onnx", "onnxruntime"} <= set(without["packages"])


@pytest.mark.parametrize(
    ("package", "counts"),
    [
        ("numpy", True), ("onnxruntime-gpu", True), ("OpenVINO", True), ("tensorrt-rtx", True), ("cuda-bindings", True),
        ("nvidia_cudnn_cu12", True), ("stamp-deploy", True), ("stamp_deploy", True), ("onnx", True),
        ("pytest", False), ("numpy-financial", False), ("onnxconverter", False),
    ],
)  # fmt: skip
def test_packages_that_compute(package: str, counts: bool) -> None:
    assert bool(machine._PACKAGES.fullmatch(package)) == counts


def one_product(weight: Any) -> Any:
    """x [n, 2] @ weight, and a weight that nothing reads once it is converted."""
    onnx = pytest.importorskip("onnx")
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [make("MatMul", ["x", "w"], ["y"])], "g", [info("x", onnx.TensorProto.FLOAT, ["n", 2])],
        [info("y", onnx.TensorProto.FLOAT, ["n", 2])],
        [onnx.numpy_helper.from_array(np.asarray(weight, np.float32), "w")],
    )  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def test_weights_are_rounded_to_the_nearest_and_ties_to_even() -> None:
    """bf16 keeps the first 16 of 32 bits: 1 + 1/256 lies midway and goes down, 1 + 3/256 up."""
    pytest.importorskip("onnx")
    given = [[1 + 1 / 256, 1 + 3 / 256], [1 + 1 / 256 + 2**-20, -(1 + 1 / 256)]]
    (found,) = convert(one_product(given), "bf16").graph.initializer
    bits = np.frombuffer(found.raw_data, np.uint16).astype(np.uint32) << 16
    assert found.name != "w", "the fp32 weight is not kept beside it"
    np.testing.assert_array_equal(bits.view(np.float32).reshape(2, 2), [[1, 1 + 4 / 256], [1 + 2 / 256, -1]])


@pytest.mark.parametrize(("largest", "fits"), [(65504.0, True), (65505.0, False), (-65536.0, False), (np.nan, False)])
def test_a_weight_that_fp16_cannot_hold_is_refused(largest: float, fits: bool) -> None:
    pytest.importorskip("onnx")
    model = one_product([[1, 2], [3, largest]])
    if fits:
        (found,) = convert(model, "fp16").graph.initializer
        assert np.frombuffer(found.raw_data, np.float16).max() == np.float16(65504)
    else:
        with pytest.raises(ParityError, match="beyond fp16's range"):
            convert(model, "fp16")
    assert convert(model, "bf16").graph.initializer


def test_a_conversion_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx")
    onnx.save(one_product(np.eye(2)), tmp_path / "source.onnx")

    def torn(model: object, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError("no space")

    monkeypatch.setattr(mixed_precision, "save", torn)
    with pytest.raises(OSError, match="no space"):
        convert_file(tmp_path / "source.onnx", tmp_path / "target.onnx", "fp16")
    assert [path.name for path in tmp_path.glob("*.onnx")] == ["source.onnx"]
