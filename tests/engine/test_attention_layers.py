"""Whether attention is fused is read out of the builder's words: of real builds, and of words that were recorded."""

from __future__ import annotations

import json
import logging
import sys

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper
from support.bundle_factory import make_bundle
from support.fake_cuda import FakeRuntime, fake_tensorrt

from stamp_deploy.bundle import load_bundle
from stamp_deploy.checks import acceptance
from stamp_deploy.engine import attention_layers
from stamp_deploy.engine import tensorrt_plan as plans
from stamp_deploy.engine.attention_layers import FusedAttention, attention_nodes, in_words, read_attention
from stamp_deploy.engine.cuda import Cuda
from stamp_deploy.engine.mixed_precision import convert_file
from stamp_deploy.engine.tensorrt import TensorRTEngine
from stamp_deploy.errors import EngineError

BLOCKS = [("node_matmul", "node_softmax", "node_matmul_1"), ("node_matmul_2", "node_softmax_1", "node_matmul_3")]
KERNEL = (
    "Name: _gemm_mha_v2_myl0_7, LayerType: kgen, Inputs: [ { Name: __mye119827_9_myl0, Dimensions: [24,197,64], "
    "Datatype: Half }], Constants: [], TacticName: _gemm_mha_v2_0x3691c6c7, StreamId: 0, Metadata: "
    "[ONNX Layer: node_matmul_1][ONNX Layer: node_of_softmax_fp16][ONNX Layer: node_softmax]"
    "[ONNX Layer: node_of_matmul_fp32][ONNX Layer: node_matmul]"
)
SECOND_KERNEL = (
    "Name: _gemv_mha_v1_myl0_118, LayerType: kgen, Metadata: [ONNX Layer: node_matmul_3][ONNX Layer: node_softmax_1]"
    "[ONNX Layer: node_matmul_2][ONNX Layer: node_Reshape_628][ONNX Layer: node_linear_66]"
)
APART = [
    "Name: node_matmul_2_myl0_94, LayerType: gemm, Metadata: [ONNX Layer: node_matmul_2]",
    "Name: __myl_MaxrSubExpSumDivMul_myl0_95, LayerType: kgen, Metadata: [ONNX Layer: node_softmax_1]",
    "Name: node_matmul_3_myl0_96, LayerType: gemm, Metadata: [ONNX Layer: node_matmul_3]",
]
WHOLE_GRAPH = (
    "Layer(Myelin): {ForeignNode[node__to_copy...node_of_pathways]}, Metadata: [ONNX Layer: node_matmul][ONNX Layer: "
    "node_softmax][ONNX Layer: node_matmul_1][ONNX Layer: node_matmul_2][ONNX Layer: node_softmax_1][ONNX Layer: "
    "node_matmul_3]"
)
FUSED, HALF = (
    "\n".join(["Layers:", KERNEL, SECOND_KERNEL, "", "I/O Tensors:"]),
    "\n".join(["Layers:", KERNEL, *APART]),
)


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        (FUSED, FusedAttention(2, ())),
        (HALF, FusedAttention(2, ("node_softmax_1",))),
        ("Layers:\n" + "\n".join([KERNEL.replace("[ONNX Layer: node_matmul]", ""), *APART]),
         FusedAttention(2, ("node_softmax", "node_softmax_1"))),
        ("", None),
        ("Engine Layer Information:\nLayer(Myelin): {ForeignNode[a...b]}, Tactic: 0x0, tiles -> embedding", None),
        ("Layers:\n" + WHOLE_GRAPH, None),
        ("\n".join(["Layers:", KERNEL]), None),
    ],
    ids=["fused", "one is not", "a product apart", "silent", "names only", "one layer for all", "one not named"],
)  # fmt: skip
def test_recorded_words(layers: str, found: FusedAttention | None) -> None:
    assert read_attention(layers, BLOCKS) == found


def test_a_model_without_attention_says_nothing() -> None:
    assert read_attention(FUSED, []) is None


def attention_model(between: str | None) -> onnx.ModelProto:
    """Two blocks, the operator `between` on both sides of the Softmax; and a Softmax that is none of attention."""
    nodes, last = [], "x"
    for block in range(2):
        step = [("MatMul", [last, "w"], f"logits_{block}")]
        step += [(between, [f"logits_{block}"], f"scaled_{block}")] if between else []
        step += [("Softmax", [step[-1][2]], f"softmax_{block}")]
        step += [(between, [f"softmax_{block}"], f"back_{block}")] if between else []
        step += [("MatMul", [step[-1][2], "w"], f"mixed_{block}")]
        nodes += [helper.make_node(kind, given, [out], name=f"node_{out}") for kind, given, out in step]
        last = f"mixed_{block}"
    nodes.append(helper.make_node("Softmax", [last], ["y"], name="classes"))
    shape = [1, 4, 4]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.ones((4, 4), np.float32), "w")],
    )  # fmt: skip
    return helper.make_model(graph)


@pytest.mark.parametrize("between", [None, "Identity"])
def test_blocks_are_found_in_the_graph(between: str | None) -> None:
    found = attention_nodes(attention_model(between))
    assert found == [(f"node_logits_{i}", f"node_softmax_{i}", f"node_mixed_{i}") for i in range(2)]


class TestOfAPlan:
    """The record beside the plan, the log, and the words of the commands; over a TensorRT that is made of numpy."""

    @pytest.fixture(autouse=True)
    def trt(self, monkeypatch, tmp_path):
        trt = fake_tensorrt()
        for place in ("stamp_deploy.engine.tensorrt_plan", "stamp_deploy.engine.tensorrt"):
            monkeypatch.setattr(f"{place}.load_module", lambda flavour: trt)
        monkeypatch.setattr(attention_layers, "attention_nodes", lambda model: BLOCKS)
        monkeypatch.setenv("STAMP_CACHE_DIR", str(tmp_path / "cache"))
        self.folder = tmp_path / "bundle"
        self.bundle = load_bundle(make_bundle(self.folder))
        self.say = lambda words: monkeypatch.setattr(trt, "layers", words)
        return trt

    def built(self, caplog) -> tuple[dict, list[logging.LogRecord]]:
        caplog.set_level(logging.INFO, "stamp_deploy")
        plan = plans.get_plan(self.bundle, "tensorrt-rtx", None, batch=4, precision="fp32")
        assert json.loads((plan.folder / plans.FACTS_FILE).read_text())["attention"] == plan.facts["attention"]
        return plan.facts["attention"], [r for r in caplog.records if r.getMessage() == "attention of a plan"]

    def test_fused(self, caplog):
        self.say(FUSED)
        facts, (told,) = self.built(caplog)
        assert facts == {"blocks": 2, "fused": 2, "apart": []} and told.levelno == logging.INFO

    def test_a_block_without_is_a_warning_that_names_it(self, caplog):
        self.say(HALF)
        facts, (told,) = self.built(caplog)
        assert facts == {"blocks": 2, "fused": 1, "apart": ["node_softmax_1"]}
        assert told.levelno == logging.WARNING
        assert told.stamp_fields["not_fused"] == ["node_softmax_1"]
        assert told.stamp_fields["attention"] == "fused in 1 of 2 blocks"

    def test_a_silent_builder_is_not_known(self, caplog):
        facts, (told,) = self.built(caplog)
        assert facts is None and told.levelno == logging.INFO and in_words(facts) == "not known"

    def test_without_the_package_onnx_it_is_not_known(self, caplog, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnx", None)
        assert attention_layers.attention_of(self.bundle.encoder, FUSED) is None

    def test_a_plan_does_not_take_the_words_of_the_one_before(self, caplog):
        self.say(FUSED)
        self.built(caplog)
        self.say("")
        plan = plans.get_plan(self.bundle, "tensorrt-rtx", None, batch=2, precision="fp32")
        assert plan.facts["attention"] is None

    def test_the_engine_says_it(self, trt):
        self.say(HALF)
        engine = TensorRTEngine(self.bundle, "tensorrt", batch=4, precision="fp32", cuda=Cuda(0, FakeRuntime()))
        assert engine.info.details["attention"] == "fused in 1 of 2 blocks"
        assert all(lane.context.nvtx_verbosity == trt.ProfilingVerbosity.NONE for lane in engine._lanes)
        engine.close()

    def test_build_says_it(self, monkeypatch):
        self.say(FUSED)
        monkeypatch.setattr(acceptance, "visible_gpus", lambda: ())
        shown = acceptance.build_engine(self.bundle, "tensorrt-rtx", precision="fp32", batch=4, device=0)
        assert "attention fused in 2 of 2 blocks" in shown


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
    """A ViT of three blocks as export writes it."""
    torch = pytest.importorskip("torch")
    from support.timm_or_skip import timm_or_skip

    timm_or_skip()
    from stamp_deploy.export.graph.to_onnx import Encoder, write_encoder
    from stamp_deploy.training.model import StampModel
    from stamp_deploy.training.model.timm_library import import_timm

    torch.manual_seed(0)
    size = {"embed_dim": 128, "depth": 3, "num_heads": 2, "num_classes": 0, "img_size": 64, "patch_size": 8}
    model = StampModel(import_timm().create_model("vit_small_patch16_224", **size).eval(), "cls", 4, dim=128).eval()
    path = tmp_path_factory.mktemp("vit") / "encoder.onnx"
    write_encoder(Encoder(model, (0.5,) * 3, (0.25,) * 3), path, 64)
    return path


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_tensorrt_rtx_fuses_every_block(transformer, precision, tmp_path):
    try:
        trt = plans.load_module("tensorrt-rtx")
    except EngineError as error:
        pytest.skip(str(error))
    blocks = attention_nodes(onnx.load(transformer))
    assert len(blocks) == 3
    low = tmp_path / "encoder.onnx"
    convert_file(transformer, low, precision)
    assert attention_nodes(onnx.load(low)) == blocks
    plans.build_plan(trt, low, tile_px=64, batch=4)
    assert read_attention(plans.logger_of(trt).layers, blocks) == FusedAttention(3, ())
