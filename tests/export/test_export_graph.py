"""What export does to the graph for speed: rows that nobody reads, and projections of their own, change no number."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("stamp_deploy.training.model.timm_library").import_timm()
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import helper, numpy_helper
from timm.models.vision_transformer import Attention

rows = importlib.import_module("stamp_deploy.export.graph.unread_rows")
attention = importlib.import_module("stamp_deploy.export.graph.attention")

TOKENS, WIDTH = 5, 8
RNG = np.random.default_rng(0)


def constant(name: str, value: np.ndarray):
    return numpy_helper.from_array(value, name)


def block(end: list, extra: list | None = None) -> onnx.ModelProto:
    """An attention block over x [n, TOKENS, WIDTH] that ends in y [n, TOKENS, WIDTH], then `end`, which makes out."""
    make = helper.make_node
    nodes = [
        make("LayerNormalization", ["x", "one", "zero"], ["ln"], axis=-1),
        *(make("MatMul", ["ln", f"w{part}"], [f"{part}0"]) for part in "qkv"),
        *(make("Reshape", [f"{part}0", "heads"], [f"{part}1"]) for part in "qkv"),
        *(make("Transpose", [f"{part}1"], [f"{part}"], perm=[0, 2, 1, 3]) for part in "qv"),
        make("Transpose", ["k1"], ["k"], perm=[0, 2, 3, 1]),
        make("MatMul", ["q", "k"], ["logits"]),
        make("Softmax", ["logits"], ["weights"], axis=-1),
        make("MatMul", ["weights", "v"], ["seen"]),
        make("Transpose", ["seen"], ["turned"], perm=[0, 2, 1, 3]),
        make("Reshape", ["turned", "flat"], ["joined"]),
        make("MatMul", ["joined", "wo"], ["projected"]),
        make("Add", ["projected", "bias"], ["biased"]),
        make("Add", ["x", "biased"], ["y"]),
        *end,
    ]
    weights = [constant(f"w{part}", RNG.normal(size=(WIDTH, WIDTH)).astype(np.float32)) for part in "qkvo"]
    weights += [
        constant("one", np.ones(WIDTH, np.float32)),
        constant("zero", np.zeros(WIDTH, np.float32)),
        constant("bias", RNG.normal(size=WIDTH).astype(np.float32)),
        constant("places", RNG.normal(size=(1, TOKENS, WIDTH)).astype(np.float32)),
        constant("heads", np.asarray([-1, TOKENS, 2, WIDTH // 2], np.int64)),
        constant("flat", np.asarray([-1, TOKENS, WIDTH], np.int64)),
        constant("first", np.asarray(0, np.int64)),
        constant("third", np.asarray(2, np.int64)),
        constant("tokens", np.asarray([1], np.int64)),
        *(extra or []),
    ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", TOKENS, WIDTH])],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, ["n", "m"])],
        [tensor for tensor in weights if tensor.name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def answer(model: onnx.ModelProto) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(3, TOKENS, WIDTH)).astype(np.float32)
    return session.run(["out"], {"x": x})[0]


def rows_of(model: onnx.ModelProto, name: str) -> int | None:
    """Length of the axis of tokens of a tensor [n, tokens, width] or [n, heads, tokens, depth]."""
    return rows._shapes(model)[name][-2]


@pytest.mark.parametrize("index", ["first", "third"])
def test_one_token_is_read_and_one_is_computed(index):
    model = block([helper.make_node("Gather", ["y", index], ["out"], axis=1)])
    before = answer(model)
    assert rows.keep_read_rows(model) > 0
    np.testing.assert_allclose(answer(model), before, atol=1e-6)
    assert {name: rows_of(model, name) for name in ("q0", "logits", "seen", "projected", "y")} == dict.fromkeys(
        ("q0", "logits", "seen", "projected", "y"), 1
    )
    assert rows_of(model, "k0") == rows_of(model, "v0") == TOKENS  # every token is attended to


def test_a_mean_over_tokens_reads_all_of_them():
    model = block([helper.make_node("ReduceMean", ["y", "tokens"], ["out"], keepdims=0)])
    before = model.SerializeToString()
    assert rows.keep_read_rows(model) == 0 and model.SerializeToString() == before


def test_a_tensor_that_is_read_in_whole_elsewhere_stays_whole():
    end = [
        helper.make_node("Gather", ["y", "first"], ["token"], axis=1),
        helper.make_node("ReduceMean", ["y", "tokens"], ["mean"], keepdims=0),
        helper.make_node("Concat", ["token", "mean"], ["out"], axis=-1),
    ]
    model = block(end)
    before = answer(model)
    assert rows.keep_read_rows(model) == 0
    np.testing.assert_array_equal(answer(model), before)


def test_two_tokens_are_not_one():
    end = [
        helper.make_node("Gather", ["y", "first"], ["a"], axis=1),
        helper.make_node("Gather", ["y", "third"], ["b"], axis=1),
        helper.make_node("Concat", ["a", "b"], ["out"], axis=-1),
    ]
    model = block(end)
    before = answer(model)
    assert rows.keep_read_rows(model) == 0
    np.testing.assert_array_equal(answer(model), before)


def test_a_constant_with_a_value_for_each_token_stops_the_pass():
    end = [
        helper.make_node("Add", ["y", "places"], ["placed"]),
        helper.make_node("Gelu", ["placed"], ["gelu"]),
        helper.make_node("Gather", ["gelu", "third"], ["out"], axis=1),
    ]
    model = block(end)
    before = answer(model)
    assert rows.keep_read_rows(model) == 1  # the Gelu alone
    np.testing.assert_allclose(answer(model), before, atol=1e-6)
    assert rows_of(model, "placed") == TOKENS and rows_of(model, "gelu") == 1


@pytest.mark.parametrize("kwargs", [{"qkv_bias": True}, {"qkv_bias": False}, {"qk_norm": True}], ids=str)
def test_separate_projections_say_the_same_and_go_away_again(kwargs):
    torch.manual_seed(0)
    part = Attention(12, num_heads=3, norm_layer=torch.nn.LayerNorm, **kwargs).eval()
    holder, x = torch.nn.Sequential(part), torch.randn(2, 7, 12)
    names = set(holder.state_dict())
    with torch.no_grad():
        expected = holder(x)
        with attention.plain_attention(holder):
            assert part.export_k.weight.data_ptr() == part.qkv.weight[12:].data_ptr()  # shared, not copied
            torch.testing.assert_close(holder(x), expected)
        assert set(holder.state_dict()) == names and part.forward.__func__ is Attention.forward
        torch.testing.assert_close(holder(x), expected)


def test_attention_of_another_kind_is_left_as_it_is():
    class Other(Attention):
        def forward(self, x, attn_mask=None, is_causal=False):
            return super().forward(x) * 2

    holder, x = torch.nn.Sequential(Other(12, num_heads=3).eval()), torch.randn(1, 4, 12)
    with torch.no_grad(), attention.plain_attention(holder):
        torch.testing.assert_close(holder(x), 2 * Attention.forward(holder[0], x))
        assert not hasattr(holder[0], "export_q")
