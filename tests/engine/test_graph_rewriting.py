"""Graphs that look almost like what is rewritten: whatever is done with them, they answer as before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
import onnxruntime
from onnx import ModelProto, TensorProto, helper, numpy_helper

from stamp_deploy.engine.graph_forms import Form
from stamp_deploy.engine.graph_rewriting import ATTENTION_OPSET, fix_batch, fuse_attention, merge_products, rewrite

make = helper.make_node
FLOAT = TensorProto.FLOAT
SHAPE = [3, 4, 8]
"""Of the input: images, tokens, width."""


def model_of(
    nodes: Sequence[Any], weights: dict[str, Any], outputs: dict[str, list[Any]], *, opset: int = 23, ir: int = 11,
    domains: dict[str, int] | None = None,
) -> ModelProto:  # fmt: skip
    """A model of x [n, 4, 8]."""
    used = {name for node in nodes for name in node.input} | set(outputs)
    graph = helper.make_graph(
        list(nodes), "g", [helper.make_tensor_value_info("x", FLOAT, ["n", *SHAPE[1:]])],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items() if name in used],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(*pair) for pair in (domains or {}).items())]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def answers(model: ModelProto) -> list[Any]:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": normal(*SHAPE, seed=7)}))


def count(model: ModelProto, kind: str) -> int:
    return sum(node.op_type == kind for node in model.graph.node)


def stays_right(model: ModelProto, act: Callable[[ModelProto], Any]) -> Any:
    """What `act` gives; the model's answers are as before."""
    before = answers(model)
    found = act(model)
    for one, other in zip(answers(model), before, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)
    return found


WEIGHTS = {
    **{f"w{part}": normal(8, 8, seed=number) for number, part in enumerate("qkv")},
    "two": np.asarray([-1, 4, 2, 4]), "one": np.asarray([-1, 4, 1, 8]), "flat": np.asarray([-1, 4, 8]),
    "scale": np.float32(0.5), "by_head": np.asarray([0.5, 2.0], np.float32).reshape(1, 2, 1, 1),
}  # fmt: skip


def attention(
    *, heads: dict[str, str] | None = None, scale: str = "", value_first: bool = False, axis: int | None = -1,
    outputs: Sequence[str] = (), more: Sequence[Any] = (),
) -> ModelProto:  # fmt: skip
    """One plain attention over x, with what makes it special."""
    shapes = {"q": "two", "k": "two", "v": "two", **(heads or {})}
    nodes = [make("MatMul", ["x", f"w{part}"], [f"{part}0"]) for part in "qkv"]
    nodes += [make("Reshape", [f"{part}0", shapes[part]], [f"{part}1"]) for part in "qkv"]
    nodes += [make("Transpose", [f"{part}1"], [f"{part}2"], perm=[0, 2, 1, 3]) for part in "qv"]
    nodes += [make("Transpose", ["k1"], ["k2"], perm=[0, 2, 3, 1])]
    nodes += [make("Mul", ["q2", scale], ["q3"])] if scale else []
    nodes += [
        make("MatMul", ["q3" if scale else "q2", "k2"], ["logits"]),
        make("Softmax", ["logits"], ["weights"], **({} if axis is None else {"axis": axis})),
        make("MatMul", ["v2", "weights"] if value_first else ["weights", "v2"], ["seen"]),
        make("Transpose", ["seen"], ["turned"], perm=[0, 2, 1, 3]),
        make("Reshape", ["turned", "flat"], ["out"]),
        *more,
    ]
    shown = {"out": ["n", 4, 8], **{name: ["n", None, None, None] for name in outputs}}
    return model_of(nodes, WEIGHTS, shown)


@pytest.mark.parametrize("scale", ["", "scale"])
@pytest.mark.parametrize("axis", [-1, 3, None])
def test_plain_attention_becomes_one_operator(scale: str, axis: int | None) -> None:
    model = attention(scale=scale, axis=axis)
    assert stays_right(model, fuse_attention) == 1
    assert (count(model, "Attention"), count(model, "Softmax"), count(model, "Transpose")) == (1, 0, 0)
    assert {tensor.name for tensor in model.graph.initializer} == {"wq", "wk", "wv"}, "nothing is left unread"


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": ["weights"]}, {"outputs": ["logits"]}, {"outputs": ["k2"]}, {"outputs": ["seen"]},
        {"outputs": ["turned"]}, {"outputs": ["q1"]}, {"scale": "by_head"}, {"scale": "scale", "outputs": ["q3"]},
        {"heads": {"q": "one", "k": "one"}}, {"axis": 2}, {"axis": 1},
        {"more": [make("Identity", ["v2"], ["again"])], "outputs": ["again"]},
        {"more": [make("Identity", ["weights"], ["again"])], "outputs": ["again"]},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_read_elsewhere_or_is_another_product_stays(changes: dict[str, Any]) -> None:
    """A model may give its attention maps, scale each head on its own, or share values between heads."""
    model = attention(**changes)
    before = model.SerializeToString()
    assert stays_right(model, fuse_attention) == 0
    assert model.SerializeToString() == before


def test_values_on_the_left_are_another_product() -> None:
    """V @ softmax mixes dimensions of the values, not tokens; both are 4 here."""
    model = attention(value_first=True)
    assert stays_right(model, fuse_attention) == 0


@pytest.mark.parametrize(("opset", "ir"), [(20, 10), (22, 9), (23, 11), (24, 12)])
def test_the_graph_says_the_opset_that_it_needs_and_never_an_older_one(opset: int, ir: int) -> None:
    model = attention()
    model.opset_import[0].version, model.ir_version = opset, ir
    model.opset_import.extend([helper.make_opsetid("com.microsoft", 1)])
    fuse_attention(model)
    found = {one.domain: one.version for one in model.opset_import}
    assert found == {"": max(opset, ATTENTION_OPSET), "com.microsoft": 1} and model.ir_version == max(ir, 11)


def products(*branches: tuple[str, str, str], outputs: Sequence[str] = (), more: Sequence[Any] = ()) -> ModelProto:
    """x @ weight + bias of each branch: (input, weight, bias)."""
    weights = {
        **{f"w{i}": normal(8, width, seed=i) for i, width in enumerate((8, 4, 2))}, "deep": normal(1, 8, 4, seed=5),
        **{f"b{i}": normal(width, seed=9 + i) for i, width in enumerate((8, 4, 2))}, "b_all": normal(1, 4, 4, seed=20),
        "b_one": normal(1, seed=21),
    }  # fmt: skip
    nodes = [make("Relu", ["x"], ["y"])]
    for number, (source, weight, bias) in enumerate(branches):
        nodes += [make("MatMul", [source, weight], [f"p{number}"])]
        pair = [f"p{number}", bias] if number % 2 else [bias, f"p{number}"]
        nodes += [make("Add", pair, [f"s{number}"])]
    shown = {f"s{i}": ["n", 4, None] for i in range(len(branches))} | {name: ["n", 4, None] for name in outputs}
    return model_of([*nodes, *more], weights, shown)


def test_products_of_one_input_become_one() -> None:
    model = products(("x", "w0", "b0"), ("x", "w1", "b1"), ("y", "w2", "b2"), ("x", "w2", "b2"))
    assert stays_right(model, merge_products) == 1
    assert (count(model, "MatMul"), count(model, "Split"), count(model, "Add")) == (2, 1, 2)


@pytest.mark.parametrize(
    ("branches", "outputs"),
    [
        ([("x", "w0", "b0"), ("y", "w0", "b0")], []),  # one weight, two inputs
        ([("x", "w1", "b1"), ("x", "w1", "b_all")], []),  # a bias of each token
        ([("x", "w1", "b_one"), ("x", "w1", "b1")], []),  # one number for all
        ([("x", "w1", "b1"), ("x", "deep", "b1")], []),
        ([("x", "w1", "b1"), ("x", "w2", "b2")], ["p1"]),  # the product itself is an output
    ],
)
def test_other_products_stay(branches: list[tuple[str, str, str]], outputs: list[str]) -> None:
    model = products(*branches, outputs=outputs)
    before = model.SerializeToString()
    assert stays_right(model, merge_products) == 0
    assert model.SerializeToString() == before


@pytest.mark.parametrize("shape", [{}, {"start": 1}, {"start": 1, "end": 2}, {"end": 1}, {"start": -2}])
def test_a_shape_of_the_input_is_a_constant_of_a_fixed_batch(shape: dict[str, int]) -> None:
    """And what else is read of it: a token for each image."""
    nodes = [
        make("Shape", ["x"], ["shape"], **shape),
        make("Cast", ["shape"], ["numbers"], to=FLOAT),
        make("ReduceSum", ["numbers"], ["sum"], keepdims=0),
        make("Shape", ["x"], ["images"], start=0, end=1),
        make("Concat", ["images", "rest"], ["wanted"], axis=0),
        make("Expand", ["token", "wanted"], ["tokens"]),
        make("Concat", ["tokens", "x"], ["longer"], axis=1),
        make("Add", ["longer", "sum"], ["out"]),
    ]
    model = model_of(nodes, {"rest": np.asarray([1, 8]), "token": normal(1, 1, 8)}, {"out": ["n", 5, 8]})
    stays_right(model, lambda model: fix_batch(model, SHAPE[0]))
    assert count(model, "Shape") == count(model, "Expand") == 0
    for value in (*model.graph.input, *model.graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        assert (dim.dim_value, dim.dim_param) == (SHAPE[0], "")


def test_a_constant_that_is_an_output_is_kept() -> None:
    """Where all of an output follows from the batch, it is given as a constant."""
    nodes = [make("Shape", ["x"], ["images"], start=0, end=1), make("Concat", ["images", "rest"], ["wanted"], axis=0),
             make("Expand", ["token", "wanted"], ["tokens"]), make("Relu", ["x"], ["out"])]  # fmt: skip
    model = model_of(
        nodes, {"rest": np.asarray([4, 8]), "token": normal(1, 1, 8)}, {"out": ["n", 4, 8], "tokens": ["n", 4, 8]}
    )
    stays_right(model, lambda model: fix_batch(model, SHAPE[0]))


def test_a_form_does_what_it_says_and_no_more() -> None:
    for form, operators in (
        (Form(), (0, 3, 0)), (Form(fused=True), (1, 3, 0)), (Form(batch=3), (0, 3, 3)),
        (Form(fused=True, batch=3), (1, 3, 3)),
    ):  # fmt: skip
        model = attention()
        stays_right(model, lambda model, form=form: rewrite(model, form))  # type: ignore[misc]
        dim = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
        assert (count(model, "Attention"), count(model, "MatMul") - 2 * (not form.fused), dim) == operators
