"""What GPU engines make of the graph: operators counted, numbers held to fp32 on the CPU, the next form tried."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
from support.bound_on_cpu import BoundOnCpu
from support.timm_or_skip import timm_or_skip

timm_or_skip()

from onnx import TensorProto, helper, numpy_helper
from support.bundle_factory import make_bundle
from support.fake_cuda import FakeRuntime, fake_tensorrt

from stamp_deploy.bundle import load_bundle
from stamp_deploy.engine import graph_forms, load_engine
from stamp_deploy.engine import tensorrt_plan as plans
from stamp_deploy.engine.auto import choose, open_accepted
from stamp_deploy.engine.cuda import Cuda
from stamp_deploy.engine.graph_forms import PLAIN, Form, forms_of, pick_form, remember_failure
from stamp_deploy.engine.graph_rewriting import fuse_attention, rewrite
from stamp_deploy.engine.mixed_precision import convert
from stamp_deploy.engine.registry import open_engine
from stamp_deploy.engine.tensorrt import TensorRTEngine
from stamp_deploy.engine.tolerances import TOLERANCES
from stamp_deploy.errors import EngineError
from stamp_deploy.export.graph.to_onnx import Encoder, write_encoder
from stamp_deploy.training.model import StampModel
from stamp_deploy.training.model.timm_library import import_timm

DEPTH, BATCH, NEW = 3, 5, "1.32.0"
MODELS = {
    "vit": ("vit_small_patch16_224", {"img_size": 64, "patch_size": 16}),
    "dinov2": ("vit_small_patch14_dinov2", {"img_size": 56, "init_values": 0.1}),
}
CUDA_FORMS = forms_of("onnxruntime-cuda", "fp16", BATCH, NEW)
TENSORRT_FORMS = forms_of("tensorrt", "fp16", BATCH)


@pytest.fixture(scope="module", params=MODELS)
def encoder(request, tmp_path_factory):
    """A small transformer as export writes it, and its tiles."""
    name, settings = MODELS[request.param]
    torch.manual_seed(0)
    size = {"embed_dim": 64, "depth": DEPTH, "num_heads": 2, "num_classes": 0}
    model = StampModel(import_timm().create_model(name, **settings, **size).eval(), "cls", 4, dim=64).eval()
    path = tmp_path_factory.mktemp("forms") / "encoder.onnx"
    side = settings["img_size"]
    write_encoder(Encoder(model, (0.5,) * 3, (0.25,) * 3), path, side)
    tiles = np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8)
    return onnx.load(path), tiles


def formed(model, form, precision="fp32"):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    result = rewrite(copy, form)
    if precision != "fp32":
        result = convert(result, precision, also_low=form.low)
    onnx.checker.check_model(result, full_check=True)
    return result


def counts(model) -> Counter:
    return Counter(node.op_type for node in model.graph.node)


def run(model, tiles):
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"tiles": tiles})


def kinds(model) -> dict[str, int]:
    """Element type of each tensor, as shape inference finds it."""
    known = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*known.value_info, *known.output, *known.input]
    return {v.name: v.type.tensor_type.elem_type for v in values} | {t.name: t.data_type for t in known.initializer}


class TestOnnxRuntimeCuda:
    def test_attention_of_every_block_is_one_operator(self, encoder):
        before, after = counts(encoder[0]), counts(formed(encoder[0], CUDA_FORMS[0]))
        assert before["Softmax"] == DEPTH and after["Softmax"] == 0 and after["Attention"] == DEPTH
        assert before["MatMul"] == 8 * DEPTH
        # queries, keys and values in one product; in the last block queries are of the class token alone
        assert after["Split"] == DEPTH and after["MatMul"] == 4 * DEPTH + 1
        assert after["Transpose"] == before["Transpose"] - 4 * DEPTH
        assert after["Reshape"] == before["Reshape"] - 4 * DEPTH

    def test_the_scale_is_kept_and_softmax_is_left_to_the_kernel(self, encoder):
        for node in formed(encoder[0], CUDA_FORMS[0]).graph.node:
            if node.op_type == "Attention":
                found = {one.name: helper.get_attribute_value(one) for one in node.attribute}
                assert found["scale"] == pytest.approx(32**-0.5) and found["q_num_heads"] == 2
                assert "softmax_precision" not in found

    def test_norms_take_and_give_fp16(self, encoder):
        for form, wanted in zip(CUDA_FORMS, (TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.FLOAT), strict=True):
            model = formed(encoder[0], form, "fp16")
            known = kinds(model)
            norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
            assert len(norms) == 2 * DEPTH + 1
            assert {known[name] for node in norms for name in (*node.input, *node.output)} == {wanted}

    def test_fewer_casts(self, encoder):
        casts = [counts(formed(encoder[0], form, "fp16"))["Cast"] for form in CUDA_FORMS]
        assert casts[1] < casts[2]

    def test_an_older_onnx_runtime_gets_the_plain_graph(self):
        assert forms_of("onnxruntime-cuda", "fp16", BATCH, "1.24.4") == (PLAIN,)


class TestTensorRT:
    def test_nothing_depends_on_the_batch(self, encoder):
        model = formed(encoder[0], TENSORRT_FORMS[-1])
        assert counts(model)["Shape"] == 0 and counts(model)["Expand"] == 0
        for value in (*model.graph.input, *model.graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_value == BATCH

    def test_gelu_follows_its_product_without_a_cast(self, encoder):
        for form, ready in zip(TENSORRT_FORMS, (True, True, False), strict=True):
            model = formed(encoder[0], form, "fp16")
            maker = {name: node for node in model.graph.node for name in node.output}
            gelus = [node for node in model.graph.node if node.op_type == "Gelu"]
            assert len(gelus) == DEPTH
            assert {maker[node.input[0]].op_type for node in gelus} == ({"Add"} if ready else {"Cast"})

    def test_the_residual_stream_is_fp16(self, encoder):
        model = formed(encoder[0], TENSORRT_FORMS[0], "fp16")
        known = kinds(model)
        assert {known[node.output[0]] for node in model.graph.node if node.op_type == "Add"} == {TensorProto.FLOAT16}
        assert {known[node.output[0]] for node in model.graph.node if node.op_type == "Softmax"} == {TensorProto.FLOAT}

    def test_a_sum_of_two_products_is_fp32(self):
        """A sum with a constant goes with its product; a sum of two is a residual stream, where small parts count."""
        make = helper.make_node
        nodes = [
            make("MatMul", ["x", "a"], ["xa"]),
            make("MatMul", ["x", "b"], ["xb"]),
            make("Add", ["xa", "xb"], ["y"]),
        ]
        graph = helper.make_graph(
            [*nodes, make("Add", ["y", "c"], ["z"])], "two products",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 4])],
            [numpy_helper.from_array(np.ones((4, 4), np.float32), name) for name in "ab"]
            + [numpy_helper.from_array(np.ones(4, np.float32), "c")],
        )  # fmt: skip
        opset = [helper.make_opsetid("", 20)]
        converted = convert(helper.make_model(graph, opset_imports=opset, ir_version=10), "fp16")
        known = kinds(converted)
        assert {known[n.output[0]] for n in converted.graph.node if n.op_type == "MatMul"} == {TensorProto.FLOAT16}
        sums = [known.get(n.output[0], TensorProto.FLOAT) for n in converted.graph.node if n.op_type == "Add"]
        assert sums == [TensorProto.FLOAT] * 2

    def test_only_fp16_has_a_residual_of_its_own(self):
        assert [form.name for form in forms_of("tensorrt", "bf16", BATCH)] == [
            "fixed batch, Gelu in low",
            "fixed batch",
        ]
        assert [form.name for form in forms_of("tensorrt-rtx", "fp32", BATCH)] == ["fixed batch"]


@pytest.mark.parametrize("form", [*CUDA_FORMS, *TENSORRT_FORMS], ids=lambda form: form.name)
def test_numbers_stay_on_the_cpu(encoder, form):
    model, tiles = encoder
    want = run(model, tiles)
    for precision, limit in (("fp32", 2e-6), ("fp16", 0.02)):
        found = run(formed(model, form, precision), tiles)
        for one, other in zip(found, want, strict=True):
            assert one.dtype == np.float32 and np.abs(one - other).max() <= limit * max(1.0, np.abs(other).max())
    cosine = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(found[0], want[0], strict=True)]
    assert min(cosine) >= TOLERANCES["fp16"].cosine_min


def test_another_batch_is_another_graph(encoder):
    model, tiles = encoder
    form = Form("fixed batch", batch=2)
    np.testing.assert_allclose(run(formed(model, form), tiles[:2])[0], run(model, tiles[:2])[0], rtol=0, atol=1e-5)


def small_attention(change) -> onnx.ModelProto:
    """One plain attention over x [n, 4, 8], changed by a function of its list of nodes."""
    make = helper.make_node
    nodes = [
        *(make("MatMul", ["x", f"w{part}"], [f"{part}0"]) for part in "qkv"),
        *(make("Reshape", [f"{part}0", "heads"], [f"{part}1"]) for part in "qkv"),
        *(make("Transpose", [f"{part}1"], [part], perm=[0, 2, 1, 3]) for part in "qv"),
        make("Transpose", ["k1"], ["k"], perm=[0, 2, 3, 1]),
        make("MatMul", ["q", "k"], ["logits"]),
        make("Softmax", ["logits"], ["weights"], axis=-1),
        make("MatMul", ["weights", "v"], ["seen"]),
        make("Transpose", ["seen"], ["turned"], perm=[0, 2, 1, 3]),
        make("Reshape", ["turned", "flat"], ["out"]),
    ]
    nodes = change(nodes, make)
    rng = np.random.default_rng(0)
    weights = {f"w{part}": rng.normal(size=(8, 8)).astype(np.float32) for part in "qkv"}
    weights |= {
        "heads": np.asarray([-1, 4, 2, 4]),
        "flat": np.asarray([-1, 4, 8]),
        "mask": np.zeros((4, 4), np.float32),
    }
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 4, 8])],
        [numpy_helper.from_array(values, name) for name, values in weights.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _masked(nodes, make):
    masked = [make("MatMul", ["q", "k"], ["raw"]), make("Add", ["raw", "mask"], ["logits"])]
    return [*nodes[:9], *masked, *nodes[10:]]


def _other_axis(nodes, make):
    return [make("Softmax", ["logits"], ["weights"], axis=2) if node.op_type == "Softmax" else node for node in nodes]


def _other_turn(nodes, make):
    return [*nodes[:-2], make("Transpose", ["seen"], ["turned"], perm=[2, 0, 1, 3]), nodes[-1]]


@pytest.mark.parametrize("change", [_masked, _other_axis, _other_turn])
def test_what_is_no_plain_attention_stays(change):
    model = small_attention(change)
    before = model.SerializeToString()
    assert fuse_attention(model) == 0 and model.SerializeToString() == before


def test_plain_attention_without_a_scale_is_found():
    model = small_attention(lambda nodes, make: nodes)
    x = np.random.default_rng(1).normal(size=(3, 4, 8)).astype(np.float32)
    import onnxruntime

    def answer():
        return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"x": x}
        )[0]

    want = answer()
    assert fuse_attention(model) == 1 and counts(model)["Attention"] == 1
    np.testing.assert_allclose(answer(), want, rtol=0, atol=1e-5)


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setenv("STAMP_CACHE_DIR", str(tmp_path / "cache"))
    return load_bundle(make_bundle(tmp_path / "bundle", golden_tiles=24))


@pytest.fixture
def bound(monkeypatch):
    """`onnxruntime-cuda` on the CPU provider, behind the usual doors; `new` makes ONNX Runtime recent enough."""
    real = open_engine

    def opened(bundle, name, **settings):
        if name != "onnxruntime-cuda":
            return real(bundle, name, **settings)
        return BoundOnCpu(bundle, batch=settings["batch"], precision=settings["precision"])

    monkeypatch.setattr("stamp_deploy.engine.auto.open_engine", opened)
    monkeypatch.setattr("stamp_deploy.engine.graph_forms.FUSING_ONNXRUNTIME", (1, 0))


class TestTheNextForm:
    def spoiled(self, monkeypatch, bad: set[str]):
        """Graphs of these forms come out wrong."""
        real = rewrite

        def wrong(model, form):
            result = real(model, form)
            if form.name in bad:
                (tensor,) = [one for one in result.graph.initializer if one.name == "project"]
                tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), "project"))
            return result

        monkeypatch.setattr("stamp_deploy.engine.mixed_precision.rewrite", wrong)

    @pytest.mark.parametrize("bad", [0, 1, 2])
    def test_is_tried_until_one_passes_and_then_taken_at_once(self, bundle, bound, monkeypatch, bad):
        names = [form.name for form in CUDA_FORMS]
        self.spoiled(monkeypatch, set(names[:bad]))
        engine = open_accepted(bundle, "onnxruntime-cuda", batch=8, precision="fp16")
        assert engine.accepted and engine.info.details["graph"] == names[bad]
        engine.close()
        again = BoundOnCpu(bundle, batch=8, precision="fp16")
        assert again.info.details["graph"] == names[bad]
        again.close()

    def test_is_tried_where_the_fastest_is_chosen(self, bundle, bound, monkeypatch):
        self.spoiled(monkeypatch, {CUDA_FORMS[0].name})
        engine = choose(bundle, ("onnxruntime-cuda",), batch=8, precision="fp16")
        assert engine.info.details["graph"] == CUDA_FORMS[1].name
        engine.close()

    def test_where_all_fail_the_cpu_takes_over(self, bundle, bound, monkeypatch):
        self.spoiled(monkeypatch, {form.name for form in CUDA_FORMS})
        engine = load_engine(bundle, "onnxruntime-cuda", batch=8, precision="fp16")
        assert engine.info.name == "onnxruntime" and "failed parity" in engine.info.why
        engine.close()

    def test_a_failure_is_forgotten_after_a_day(self, bundle, monkeypatch):
        pick = partial(pick_form, bundle, "onnxruntime-cuda", "fp16", CUDA_FORMS)
        assert pick() == (CUDA_FORMS[0], True)
        assert remember_failure(bundle, "onnxruntime-cuda", "fp16", CUDA_FORMS[0])
        assert pick() == (CUDA_FORMS[1], True)
        remember_failure(bundle, "onnxruntime-cuda", "fp16", CUDA_FORMS[1])
        assert pick() == (CUDA_FORMS[2], False)
        monkeypatch.setattr(graph_forms, "EXPIRES_S", 0.0)
        assert pick() == (CUDA_FORMS[0], True)

    def test_a_plan_is_built_of_the_next_form(self, bundle, monkeypatch):
        trt = fake_tensorrt()
        monkeypatch.setattr(plans, "load_module", lambda flavour: trt)
        monkeypatch.setattr("stamp_deploy.engine.tensorrt.load_module", lambda flavour: trt)
        real = open_engine

        def opened(bundle, name, **settings):
            if name != "tensorrt":
                return real(bundle, name, **settings)
            return TensorRTEngine(bundle, "tensorrt", batch=8, precision="fp16", cuda=Cuda(0, FakeRuntime()))

        monkeypatch.setattr("stamp_deploy.engine.auto.open_engine", opened)
        self.spoiled(monkeypatch, {"fixed batch, residual in fp16"})
        engine = open_accepted(bundle, "tensorrt", batch=8, precision="fp16")
        assert engine.accepted and engine.info.details["graph"] == "fixed batch, Gelu in low"
        engine.close()

    def test_is_not_given_up_for_what_another_process_found_meanwhile(self, bundle, monkeypatch):
        trt = fake_tensorrt()
        monkeypatch.setattr(plans, "load_module", lambda flavour: trt)
        monkeypatch.setattr("stamp_deploy.engine.tensorrt.load_module", lambda flavour: trt)
        engine = TensorRTEngine(bundle, "tensorrt", batch=BATCH, precision="fp16", cuda=Cuda(0, FakeRuntime()))
        remember_failure(bundle, "tensorrt", "fp16", TENSORRT_FORMS[0])
        engine.close()
        assert engine.reject()
        assert pick_form(bundle, "tensorrt", "fp16", TENSORRT_FORMS) == (TENSORRT_FORMS[1], True)

    def test_a_bundle_in_a_lower_precision_runs_as_it_was_exported(self, tmp_path, monkeypatch):
        monkeypatch.setenv("STAMP_CACHE_DIR", str(tmp_path / "cache"))
        low = load_bundle(make_bundle(tmp_path / "low", facts={"precision": "fp16"}))
        engine = BoundOnCpu(low, batch=4)
        assert engine.info.details["graph"] == "plain"
        engine.close()


@pytest.mark.parametrize("form", TENSORRT_FORMS, ids=lambda form: form.name)
def test_tensorrt_rtx_builds_every_form(encoder, form, tmp_path):
    try:
        trt = plans.load_module("tensorrt-rtx")
    except EngineError as error:
        pytest.skip(str(error))
    model, tiles = encoder
    path = tmp_path / "encoder.onnx"
    onnx.save(formed(model, form, "fp16"), path)
    assert plans.build_plan(trt, path, tile_px=tiles.shape[1], batch=BATCH)
