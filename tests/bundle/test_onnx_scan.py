"""The walk over ONNX bytes sees everything that a runtime would load, with a bound on everything."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from support.bundle_factory import make_bundle

from stamp_deploy.bundle import load_bundle, onnx_scan
from stamp_deploy.bundle.onnx_scan import check_external, scan
from stamp_deploy.errors import BundleError

LOCAL = "pkg.onnxscript.torch_lib"
"""A domain that is allowed, for functions of the model's own."""
HERE = Path("bundle/encoder.onnx")
LISTED = {Path("bundle/encoder.onnx"): 1000, Path("bundle/weights.bin"): 100}


def outside(location="/etc/passwd", name="t", **entries):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def graph(nodes=(), **more):
    value = helper.make_tensor_value_info
    return helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"]), *nodes],
        "g",
        [value("x", TensorProto.FLOAT, ["n", 3])],
        [value("y", TensorProto.FLOAT, ["n", 3])],
        **more,
    )


def model(nodes=(), functions=(), **more):
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(LOCAL, 1)]
    made = helper.make_model(graph(nodes, **more), opset_imports=imports, ir_version=10)
    made.functions.extend(functions)
    return made


def function(name, nodes):
    return helper.make_function(LOCAL, name, ["a"], ["b"], nodes, [helper.make_opsetid("", 20)])


def sparse():
    values = onnx.SparseTensorProto(dims=[9])
    values.values.CopyFrom(outside(name="s"))
    return values


def node(**attributes):
    return helper.make_node("Constant", [], ["c"], **attributes)


def attribute(kind, **fields):
    """A node with one attribute made by hand: the helpers do not write every kind."""
    made = helper.make_node("Constant", [], ["c"])
    item = made.attribute.add(name="a", type=kind)
    for key, value in fields.items():
        target = getattr(item, key)
        target.extend([value]) if hasattr(target, "extend") else target.CopyFrom(value)
    return made


def branch(inner):
    return helper.make_graph([inner], "branch", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [4])])


def training(made, part="algorithm"):
    info = made.training_info.add()
    getattr(info, part).CopyFrom(helper.make_graph([], "t", [], [], initializer=[outside()]))
    return made


def function_attribute(made):
    item = made.functions[0].attribute_proto.add(name="a", type=onnx.AttributeProto.TENSOR)
    item.t.CopyFrom(outside())
    return made


KIND = onnx.AttributeProto
HIDING = {
    "initializer": lambda: model(initializer=[outside()]),
    "sparse initializer": lambda: model(sparse_initializer=[sparse()]),
    "sparse indices": lambda: model(sparse_initializer=[onnx.SparseTensorProto(indices=outside())]),
    "attribute": lambda: model([node(value=outside())]),
    "list of tensors": lambda: model([attribute(KIND.TENSORS, tensors=outside())]),
    "sparse attribute": lambda: model([attribute(KIND.SPARSE_TENSOR, sparse_tensor=sparse())]),
    "list of sparse tensors": lambda: model([attribute(KIND.SPARSE_TENSORS, sparse_tensors=sparse())]),
    "branch": lambda: model([attribute(KIND.GRAPH, g=branch(node(value=outside())))]),
    "list of branches": lambda: model([attribute(KIND.GRAPHS, graphs=branch(node(value=outside())))]),
    "initializer of a branch": lambda: model([attribute(KIND.GRAPH, g=graph(initializer=[outside()]))]),
    "function": lambda: model(functions=[function("f", [node(value=outside())])]),
    "default of a function": lambda: function_attribute(model(functions=[function("f", [])])),
    "training": lambda: training(model()),
    "start of training": lambda: training(model(), "initialization"),
}  # fmt: skip


@pytest.mark.parametrize("where", HIDING)
def test_external_data_is_seen_wherever_it_hides(where):
    facts = scan(HIDING[where]().SerializeToString(), HERE)
    assert [item.location for item in facts.external] == ["/etc/passwd"]
    with pytest.raises(BundleError, match="external data points at '/etc/passwd'"):
        check_external(HERE, facts, LISTED)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "weights.bin", "offset": 90, "length": 11}, "past the end"),
        ({"location": "weights.bin", "offset": 101}, "past the end"),
        ({"location": "weights.bin", "offset": -1, "length": 4}, "past the end"),
        ({"location": "weights.bin", "length": -1}, "past the end"),
        ({"location": "weights.bin", "offset": "1e3"}, "not a number"),
        ({"location": "../bundle/weights.bin"}, "points at"),
        ({"location": "./weights.bin"}, "points at"),
        ({"location": ""}, "points at"),
        ({"location": "other.bin"}, "points at"),
        ({"location": "sub\\..\\weights.bin"}, "points at"),
    ],
)
def test_external_data_must_lie_inside_a_listed_file(entries, message):
    with pytest.raises(BundleError, match=message):
        check_external(HERE, scan(model(initializer=[outside(**entries)]).SerializeToString(), HERE), LISTED)


def test_external_data_inside_a_listed_file_is_allowed():
    facts = scan(model(initializer=[outside("weights.bin", offset=96, length=4)]).SerializeToString(), HERE)
    check_external(HERE, facts, LISTED)


CONTROL = {
    "Loop": lambda: helper.make_node("Loop", ["trips", ""], ["l"], body=branch(node(value_float=1.0))),
    "Scan": lambda: helper.make_node("Scan", ["x"], ["s"], body=branch(node(value_float=1.0)), num_scan_inputs=1),
    "If": lambda: helper.make_node(
        "If", ["c"], ["i"], then_branch=branch(node(value_float=1.0)), else_branch=branch(node(value_float=2.0))
    ),
    "SequenceMap": lambda: helper.make_node("SequenceMap", ["x"], ["m"], body=branch(node(value_float=1.0))),
    "GreedySearch": lambda: helper.make_node(
        "GreedySearch", ["x"], ["m"], domain="com.microsoft", decoder=branch(node(value_float=1.0))
    ),
}


@pytest.mark.parametrize("where", ["graph", "function"])
@pytest.mark.parametrize("name", CONTROL)
def test_control_flow_is_refused_with_the_reason(name, where):
    inner = CONTROL[name]()
    made = model([inner]) if where == "graph" else model(functions=[function("f", [inner])])
    facts = scan(made.SerializeToString(), HERE)
    with pytest.raises(BundleError, match=f"control flow \\({name}\\), which could run without end") as caught:
        check_external(HERE, facts, LISTED)
    assert caught.value.exit_code == 5 and "without loops" in caught.value.remedy


def test_a_loop_of_2_to_the_62_trips_is_refused_when_the_bundle_is_opened(tmp_path):
    import json

    from stamp_deploy.bundle import write_bundle_json

    folder = make_bundle(tmp_path / "bundle")
    encoder = onnx.load(folder / "encoder.onnx")
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, [])],
        [value("go_on", TensorProto.BOOL, [])],
    )
    encoder.graph.initializer.append(helper.make_tensor("trips", TensorProto.INT64, [], [2**62]))
    encoder.graph.node.append(helper.make_node("Loop", ["trips", ""], [], body=body))
    onnx.save(encoder, folder / "encoder.onnx")
    document = json.loads((folder / "bundle.json").read_text())
    with pytest.raises(BundleError, match="control flow"):
        write_bundle_json(folder, {k: v for k, v in document.items() if k not in ("files", "schema_version")})
    with pytest.raises(BundleError, match="control flow"):
        load_bundle(folder)


def call(name):
    return helper.make_node(name, ["a"], ["b"], domain=LOCAL)


def test_functions_that_call_functions_are_refused():
    nested = model(functions=[function("f", [call("g")]), function("g", [helper.make_node("Abs", ["a"], ["b"])])])
    itself = model(functions=[function("f", [call("f")])])
    for made in (nested, itself):
        facts = scan(made.SerializeToString(), HERE)
        with pytest.raises(BundleError, match="function 'f' calls another function"):
            check_external(HERE, facts, LISTED)
    flat = model([helper.make_node("f", ["x"], ["z"], domain=LOCAL)], functions=[function("f", [])])
    facts = scan(flat.SerializeToString(), HERE)
    check_external(HERE, facts, LISTED)


@pytest.mark.parametrize("domains", [("", "ai.onnx"), ("ai.onnx", ""), ("ai.onnx", "ai.onnx")])
def test_both_names_of_the_standard_domain_are_one(domains):
    """A function in the one is called from the other."""
    made = model(functions=[function("f", [helper.make_node("g", ["a"], ["b"], domain=domains[0])]), function("g", [])])
    for each in made.functions:
        each.domain = domains[1]
    with pytest.raises(BundleError, match="function 'f' calls another function"):
        check_external(HERE, scan(made.SerializeToString(), HERE), LISTED)


def test_a_function_that_is_defined_twice_calls_what_either_calls():
    made = model(functions=[function("f", [call("g")]), function("f", []), function("g", [])])
    with pytest.raises(BundleError, match="function 'f' calls another function"):
        check_external(HERE, scan(made.SerializeToString(), HERE), LISTED)


def test_what_one_function_calls_is_not_said_of_the_next():
    made = model(functions=[function("g", [helper.make_node("Abs", ["a"], ["b"])]), function("f", [])])
    facts = scan(made.SerializeToString(), HERE)
    assert facts.functions == {(LOCAL, "g"): {("", "Abs")}, (LOCAL, "f"): set()}
    check_external(HERE, facts, LISTED)


def test_the_domains_that_a_function_imports_are_seen():
    made = model(functions=[function("f", [])])
    made.functions[0].opset_import.add(domain="evil", version=1)
    with pytest.raises(BundleError, match="operators of the domain 'evil'"):
        check_external(HERE, scan(made.SerializeToString(), HERE), LISTED)


def test_inputs_and_outputs_are_those_of_the_model_alone():
    value = helper.make_tensor_value_info
    inner = helper.make_graph([], "b", [value("p", TensorProto.DOUBLE, [7])], [value("q", TensorProto.DOUBLE, [7])])
    facts = scan(model([attribute(KIND.GRAPH, g=inner)]).SerializeToString(), HERE)
    assert (facts.inputs["x"].dtype, facts.inputs["x"].shape) == ("float32", ("n", 3))
    assert list(facts.inputs) == ["x"] and list(facts.outputs) == ["y"]


@pytest.mark.parametrize(("length", "refused"), [(100, False), (101, True)])
def test_external_data_may_end_where_its_file_ends(length, refused):
    facts = scan(model(initializer=[outside("weights.bin", length=length)]).SerializeToString(), HERE)
    if refused:
        with pytest.raises(BundleError, match="past the end"):
            check_external(HERE, facts, LISTED)
    else:
        check_external(HERE, facts, LISTED)


@pytest.mark.parametrize(
    "made",
    [
        lambda: model([helper.make_node("Abs", ["x"], ["z"], domain="evil")]),
        lambda: model(functions=[function("f", [helper.make_node("Abs", ["a"], ["b"], domain="evil")])]),
        lambda: model([attribute(KIND.GRAPH, g=branch(helper.make_node("A", [], ["c"], domain="evil")))]),
    ],
    ids=["graph", "function", "branch"],
)
def test_the_domain_of_every_node_is_seen(made):
    """The model imports no such domain: only the node says it."""
    facts = scan(made().SerializeToString(), HERE)
    with pytest.raises(BundleError, match="operators of the domain 'evil'"):
        check_external(HERE, facts, LISTED)


class TestBounds:
    def field(self, number, payload):
        return bytes([number << 3 | 2, len(payload)]) + payload

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"\x3a" + b"\xff" * 11, "cut off"),  # a length of more than ten bytes
            (b"\x08" + b"\x80" * 10 + b"\x01", "cut off"),  # a number of more than ten bytes
            (b"\x3a\x05abc", "cut off"),  # longer than what is left
            (b"\x02\x00", r"damaged \(field 0\)"),
            (b"\x3b\x00", r"damaged \(wire type 3\)"),
            (b"\x3d\x00", "cut off"),
            (b"\x39\x00\x00", "cut off"),
            (b"\x3a\x03\x0a\x0a\x00" + bytes(20), "cut off"),  # a node longer than its graph, not than the file
            (b"\x3a\x02\x0a\x80\x01" + bytes(20), "cut off"),  # a length that goes on after its graph
            (b"\x3a\x02\x08\x80" + b"\x08\x07", "cut off"),  # a number that does
            (b"", "is empty"),
            (b"\x08\x07", "declares no graph"),
        ],
    )
    def test_damaged_bytes(self, data, message):
        with pytest.raises(BundleError, match=message):
            scan(data, HERE)

    def test_fixed_fields_of_8_and_of_4_bytes_are_stepped_over(self):
        data = model().SerializeToString()
        whole = b"\x99\x06" + b"\xff" * 8 + b"\x9d\x06" + b"\xff" * 4 + data  # fields 99, of 64 and of 32 bits
        assert scan(whole, HERE).inputs == scan(data, HERE).inputs

    def test_the_number_of_messages(self, monkeypatch):
        data = model([helper.make_node("Abs", ["x"], [f"z{i}"]) for i in range(50)]).SerializeToString()
        scan(data, HERE)
        monkeypatch.setattr(onnx_scan, "MAX_MESSAGES", 40)
        with pytest.raises(BundleError, match="too large"):
            scan(data, HERE)

    @pytest.mark.parametrize(("depth", "refused"), [(8, False), (40, True)])
    def test_the_depth(self, depth, refused):
        inner = node(value_float=1.0)
        for _ in range(depth // 3):
            inner = attribute(KIND.GRAPH, g=branch(inner))
        data = model([inner]).SerializeToString()
        if refused:
            with pytest.raises(BundleError, match="nested too deeply"):
                scan(data, HERE)
        else:
            scan(data, HERE)

    def test_a_name_of_4096_bytes_is_read(self):
        facts = scan(model([helper.make_node("A" * 4096, ["x"], ["z"])]).SerializeToString(), HERE)
        check_external(HERE, facts, LISTED)

    def test_long_names(self):
        data = model([helper.make_node("A" * 5000, ["x"], ["z"])]).SerializeToString()
        with pytest.raises(BundleError, match="more than 4096 bytes"):
            scan(data, HERE)


def test_a_plain_model_passes_whole():
    facts = scan(model([helper.make_node("Abs", ["x"], ["z"])]).SerializeToString(), HERE)
    check_external(HERE, facts, LISTED)
    assert facts.opset == 20 and facts.inputs["x"].shape == ("n", 3) and facts.outputs["y"].dtype == "float32"
