"""Slide-level heads: probabilities, thresholds, abstention, intervals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stamp_deploy.bundle import HeadSpec
from stamp_deploy.engine.head_model import HeadModel
from stamp_deploy.errors import BundleError
from stamp_deploy.heads import MAX_TILES_PER_REPLICATE, call_heads, decide, tile_interval, to_probabilities

DIM = 4


def mean_head(path: Path, weights: np.ndarray, *, dim: int = DIM) -> None:
    """A head whose logits are weights @ mean(embeddings) and whose attention is uniform."""
    nodes = [
        helper.make_node("ReduceMean", ["embeddings", "axis"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["w", "mean"], ["logits"]),
        helper.make_node("ReduceSum", ["embeddings", "one"], ["row"], keepdims=0),
        helper.make_node("Mul", ["row", "zero"], ["flat"]),
        helper.make_node("Softmax", ["flat"], ["attention"], axis=0),
    ]
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["N", dim])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [len(weights)]),
            helper.make_tensor_value_info("attention", TensorProto.FLOAT, ["N"]),
        ],
        [
            numpy_helper.from_array(np.array([0], np.int64), "axis"),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
            numpy_helper.from_array(weights.astype(np.float32), "w"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def bundle_of(folder: Path, *specs: HeadSpec) -> SimpleNamespace:
    def read_head(spec: HeadSpec) -> SimpleNamespace:
        return SimpleNamespace(path=folder / spec.file, graph=(folder / spec.file).read_bytes(), data={})

    return SimpleNamespace(path=folder, heads=specs, read_head=read_head)


def spec_of(**changes: object) -> HeadSpec:
    fields: dict = {
        "name": "MSI",
        "file": "msi.onnx",
        "kind": "binary",
        "classes": ("MSS", "MSI-H"),
        "temperature": 2.0,
        "thresholds": (0.5,),
        "abstain": None,
    }
    return HeadSpec(**{**fields, **changes})


def test_binary_call_uses_temperature_and_threshold(tmp_path: Path) -> None:
    mean_head(tmp_path / "msi.onnx", np.array([[0, 0, 0, 0], [1, 0, 0, 0]]))
    embedding = np.full((50, DIM), 3.0, np.float32)
    (call,) = call_heads(bundle_of(tmp_path, spec_of()), embedding)
    assert call.value == pytest.approx(1 / (1 + np.exp(-1.5)), abs=1e-6)
    assert (call.call, call.abstained) == ("MSI-H", False)
    assert call.interval == (pytest.approx(call.value), pytest.approx(call.value))
    assert call.attention is not None
    assert call.attention.sum() == pytest.approx(1, abs=1e-5)
    (strict,) = call_heads(bundle_of(tmp_path, spec_of(thresholds=(0.9,))), embedding)
    assert strict.call == "MSS"


def test_band_abstains_and_says_so(tmp_path: Path) -> None:
    mean_head(tmp_path / "msi.onnx", np.array([[0, 0, 0, 0], [1, 0, 0, 0]]))
    (call,) = call_heads(bundle_of(tmp_path, spec_of(abstain=(0.4, 0.6))), np.zeros((5, DIM), np.float32))
    assert (call.call, call.abstained, call.value) == (None, True, pytest.approx(0.5))
    assert call.to_dict()["abstain"] == [0.4, 0.6]


def test_interval_covers_the_spread_of_the_tiles_and_is_repeatable(tmp_path: Path) -> None:
    mean_head(tmp_path / "msi.onnx", np.array([[0, 0, 0, 0], [1, 0, 0, 0]]))
    embedding = np.random.default_rng(1).normal(0.5, 1, (200, DIM)).astype(np.float32)
    bundle = bundle_of(tmp_path, spec_of(temperature=1.0))
    (first,), (second,) = call_heads(bundle, embedding), call_heads(bundle, embedding)
    assert first.interval == second.interval
    low, high = (np.log(p / (1 - p)) for p in first.interval)
    # The logit is a mean of 200 values of sd 1: its 95 % interval is about 2 * 1.96 / sqrt(200) = 0.277 wide.
    assert high - low == pytest.approx(0.277, rel=0.35)
    assert first.interval[0] < first.value < first.interval[1]


def test_interval_of_a_large_slide_is_scaled_to_its_size() -> None:
    replicates = 1 / (1 + np.exp(-np.random.default_rng(0).normal(0, 0.2, 4000)))
    narrow = tile_interval("binary", 0.5, replicates, 4 * MAX_TILES_PER_REPLICATE)
    wide = tile_interval("binary", 0.5, replicates, MAX_TILES_PER_REPLICATE)
    width = [np.log(b / (1 - b)) - np.log(a / (1 - a)) for a, b in (narrow, wide)]
    assert width[1] == pytest.approx(2 * width[0], rel=1e-6)
    assert tile_interval("binary", 0.5, np.empty(0), 1) is None


def test_multiclass_and_survival_rules() -> None:
    three = to_probabilities("multiclass", np.array([0.0, 2.0, 1.0]), 1.0)
    assert three.sum() == pytest.approx(1)
    assert decide("multiclass", ("a", "b", "c"), three, ()) == "b"
    assert decide("multiclass", ("a", "b", "c"), three, (0.1, 0.9, 0.1)) is None
    risk = to_probabilities("survival", np.array([0.7]), 3.0)
    assert risk[0] == 0.7
    assert decide("survival", ("low", "high"), risk, (0.5,)) == "high"
    assert decide("survival", ("low", "high"), np.array([0.2]), (0.5,)) == "low"
    assert decide("survival", ("risk",), risk, ()) is None


def test_one_logit_is_the_positive_class() -> None:
    assert to_probabilities("binary", np.array([1.2]), 1.0)[-1] == pytest.approx(1 / (1 + np.exp(-1.2)))


def test_a_head_that_answers_otherwise_is_a_bad_bundle(tmp_path: Path) -> None:
    mean_head(tmp_path / "msi.onnx", np.eye(4))
    with pytest.raises(BundleError, match="4 logits"):
        call_heads(bundle_of(tmp_path, spec_of()), np.ones((3, DIM), np.float32))
    (tmp_path / "msi.onnx").write_bytes(b"not onnx")
    with pytest.raises(BundleError, match="cannot be loaded"):
        call_heads(bundle_of(tmp_path, spec_of()), np.ones((3, DIM), np.float32))
    mean_head(tmp_path / "msi.onnx", np.eye(2, 6), dim=6)
    with pytest.raises(BundleError, match="fails"):
        call_heads(bundle_of(tmp_path, spec_of()), np.ones((3, DIM), np.float32))


class TestEdges:
    """Where a call turns into another or into none: the edges belong to the band, the threshold to the class above."""

    def value_of(self, tmp_path: Path, **changes: object) -> float:
        (call,) = call_heads(bundle_of(tmp_path, spec_of(**changes)), self.embedding)
        return call.value

    embedding = np.full((9, DIM), 0.7, np.float32)

    @pytest.fixture(autouse=True)
    def head(self, tmp_path: Path) -> None:
        mean_head(tmp_path / "msi.onnx", np.array([[0, 0, 0, 0], [1, 0, 0, 0]]))

    @pytest.mark.parametrize(
        ("low", "high", "abstained"), [(0, 9, True), (1, 9, False), (-9, 0, True), (-9, -1, False)]
    )
    def test_both_edges_of_the_band_abstain(self, tmp_path: Path, low: int, high: int, abstained: bool) -> None:
        value = self.value_of(tmp_path)
        band = tuple(value + step * 1e-12 if abs(step) < 9 else value + step / 100 for step in (low, high))
        (call,) = call_heads(bundle_of(tmp_path, spec_of(abstain=band)), self.embedding)
        assert call.abstained is abstained and (call.call is None) is abstained and call.abstain == band

    @pytest.mark.parametrize(("step", "called"), [(0.0, "MSI-H"), (1e-12, "MSS"), (-1e-12, "MSI-H")])
    def test_the_threshold_itself_is_positive(self, tmp_path: Path, step: float, called: str) -> None:
        cut = self.value_of(tmp_path) + step
        (call,) = call_heads(bundle_of(tmp_path, spec_of(thresholds=(cut,))), self.embedding)
        assert call.call == called and not call.abstained

    def test_without_a_threshold_one_half_decides(self) -> None:
        for p, called in ((0.5, "b"), (0.499, "a"), (0.501, "b")):
            assert decide("binary", ("a", "b"), np.array([1 - p, p]), ()) == called

    @pytest.mark.parametrize(
        ("risk", "group"), [(0.4, "low"), (0.5, "middle"), (0.6, "middle"), (1.5, "high"), (9, "high")]
    )
    def test_a_risk_on_a_cut_belongs_to_the_higher_group(self, risk: float, group: str) -> None:
        assert decide("survival", ("low", "middle", "high"), np.array([risk]), (0.5, 1.5)) == group

    def test_a_higher_log_hazard_is_a_higher_risk(self, tmp_path: Path) -> None:
        mean_head(tmp_path / "os.onnx", np.array([[1, 0, 0, 0]]))
        spec = spec_of(
            name="os", file="os.onnx", kind="survival", classes=("low", "high"), thresholds=(0.5,), temperature=4.0
        )
        for height, group in ((0.2, "low"), (0.8, "high")):
            (call,) = call_heads(bundle_of(tmp_path, spec), np.full((4, DIM), height, np.float32))
            assert call.call == group and call.value == pytest.approx(height, abs=1e-6)
            assert not call.abstained and call.value_name == "risk score"


class TestMulticlass:
    def call(self, tmp_path: Path, **changes: object):
        mean_head(tmp_path / "three.onnx", np.array([[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0.5, 0]]))
        spec = spec_of(
            file="three.onnx",
            kind="multiclass",
            classes=("a", "b", "c"),
            **{"thresholds": (), "temperature": 1.0, **changes},
        )
        return call_heads(bundle_of(tmp_path, spec), np.ones((6, DIM), np.float32))[0]

    def test_the_value_is_the_largest_probability(self, tmp_path: Path) -> None:
        weights = np.exp([1, 2, 0.5])
        found = self.call(tmp_path)
        assert found.probabilities == pytest.approx(weights / weights.sum(), abs=1e-6)
        assert found.value == pytest.approx(weights[1] / weights.sum(), abs=1e-6)
        assert (found.call, found.value_name) == ("b", "P(top class)")

    def test_the_threshold_is_that_of_the_top_class(self, tmp_path: Path) -> None:
        value = self.call(tmp_path).value
        assert self.call(tmp_path, thresholds=(0.99, value, 0.99)).call == "b"
        below = self.call(tmp_path, thresholds=(0.0, value + 1e-9, 0.0))
        assert below.call is None and below.abstained

    def test_the_band_is_on_the_largest_probability(self, tmp_path: Path) -> None:
        value = self.call(tmp_path).value
        assert self.call(tmp_path, abstain=(0.0, value)).abstained
        assert self.call(tmp_path, abstain=(0.0, value - 1e-9)).call == "b"

    def test_a_temperature_flattens(self, tmp_path: Path) -> None:
        values = [self.call(tmp_path, temperature=t).value for t in (0.5, 1.0, 2.0, 1000.0)]
        assert values == sorted(values, reverse=True) and values[-1] == pytest.approx(1 / 3, abs=1e-3)


class TestIntervals:
    @pytest.mark.parametrize(("n", "scale"), [(100, 1.0), (2048, 1.0), (4 * 2048, 0.5), (16 * 2048, 0.25)])
    def test_of_a_risk_is_95_percent_scaled_to_the_slide(self, n: int, scale: float) -> None:
        replicates = np.arange(1001, dtype=float)  # quantiles 0.025 and 0.975 are 25 and 975
        low, high = tile_interval("survival", 400.0, replicates, n)
        assert low == pytest.approx(400 - scale * 375) and high == pytest.approx(400 + scale * 575)

    @pytest.mark.parametrize(("n", "scale"), [(100, 1.0), (4 * 2048, 0.5)])
    @pytest.mark.parametrize("kind", ["binary", "multiclass"])
    def test_of_a_probability_is_scaled_as_logits(self, kind: str, n: int, scale: float) -> None:
        logits = np.linspace(-2, 2, 1001)
        found = tile_interval(kind, 0.5, 1 / (1 + np.exp(-logits)), n)
        assert found == pytest.approx([1 / (1 + np.exp(scale * 1.9)), 1 / (1 + np.exp(-scale * 1.9))])

    def test_every_tile_can_be_drawn(self, tmp_path: Path) -> None:
        """One tile of four says yes: bags with it lie above the call, bags without it below, wherever it stands."""
        mean_head(tmp_path / "msi.onnx", np.array([[0, 0, 0, 0], [1, 0, 0, 0]]))
        for place in range(4):
            embedding = np.zeros((4, DIM), np.float32)
            embedding[place] = 4
            (call,) = call_heads(bundle_of(tmp_path, spec_of()), embedding)
            assert call.interval[0] == pytest.approx(0.5, abs=1e-6) and call.interval[1] > call.value + 0.1

    def test_two_tiles_have_one(self, tmp_path: Path) -> None:
        mean_head(tmp_path / "msi.onnx", np.array([[0, 0, 0, 0], [1, 0, 0, 0]]))
        for count, none in ((1, True), (2, False)):
            (call,) = call_heads(bundle_of(tmp_path, spec_of()), np.ones((count, DIM), np.float32))
            assert (call.interval is None) is none

    def test_stays_inside_0_and_1(self) -> None:
        low, high = tile_interval("binary", 1.0, np.ones(100), 50)
        assert 0 <= low <= high <= 1


@pytest.mark.parametrize("output", ["logits", "attention"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_not_finite_is_never_a_call(tmp_path: Path, output: str, value: float) -> None:
    mean_head(tmp_path / "msi.onnx", np.array([[0, 0, 0, 0], [1, 0, 0, 0]]))
    model = onnx.load(tmp_path / "msi.onnx")
    for node in model.graph.node:
        if node.output[0] == output:
            node.output[0] = "clean"
    shape = [] if output == "logits" else [1]
    model.graph.initializer.append(numpy_helper.from_array(np.full(shape, value, np.float32), "spoilt"))
    model.graph.node.append(helper.make_node("Add", ["clean", "spoilt"], [output]))
    onnx.save(model, tmp_path / "msi.onnx")
    with pytest.raises(BundleError, match="not finite"):
        call_heads(bundle_of(tmp_path, spec_of()), np.ones((3, DIM), np.float32))


def test_a_head_says_whom_it_learned_from_and_why_it_makes_no_call(tmp_path: Path) -> None:
    mean_head(tmp_path / "msi.onnx", np.array([[0, 0, 0, 0], [1, 0, 0, 0]]))
    counts = {"MSS": {"slides": 80, "patients": 70}, "MSI-H": {"slides": 20, "patients": 18}}
    details = {"slides": 100, "patients": 88, "class_counts": counts, "sites": None, "auroc": 0.9}
    bundle = bundle_of(tmp_path, spec_of(details=details))
    embedding = np.full((9, DIM), 3.0, np.float32)
    (called,) = call_heads(bundle, embedding)
    assert called.population == {key: details[key] for key in ("slides", "patients", "class_counts", "sites")}
    assert called.to_dict()["population"]["class_counts"]["MSI-H"]["slides"] == 20
    assert (called.call, called.abstained, called.cause) == ("MSI-H", False, "")
    (refused,) = call_heads(bundle, embedding, refusal="because")
    assert (refused.call, refused.abstained, refused.cause) == (None, True, "because")
    assert refused.probabilities == called.probabilities, "what the head computes is told, without a call"


def test_a_survival_head_abstains_outside_too(tmp_path: Path) -> None:
    mean_head(tmp_path / "msi.onnx", np.array([[1, 0, 0, 0]]))
    bundle = bundle_of(tmp_path, spec_of(kind="survival", classes=("low", "high"), thresholds=(0.0,)))
    (call,) = call_heads(bundle, np.ones((5, DIM), np.float32))
    assert call.call == "high" and not call.abstained
    (call,) = call_heads(bundle, np.ones((5, DIM), np.float32), refusal="because")
    assert call.abstained and call.call is None and call.cause == "because"


def test_the_cause_of_no_call_is_told(tmp_path: Path) -> None:
    mean_head(tmp_path / "msi.onnx", np.array([[0, 0, 0, 0], [1, 0, 0, 0]]))
    (call,) = call_heads(bundle_of(tmp_path, spec_of(abstain=(0.0, 1.0))), np.zeros((5, DIM), np.float32))
    assert call.abstained and "abstention band" in call.cause


@pytest.mark.parametrize("threads", [0, 3])
def test_a_head_runs_with_as_many_threads_as_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    import onnxruntime

    mean_head(tmp_path / "msi.onnx", np.eye(2, DIM))
    given: list[int] = []
    real = onnxruntime.InferenceSession

    def session(model: bytes, options: onnxruntime.SessionOptions, **more: object) -> onnxruntime.InferenceSession:
        given.append(options.intra_op_num_threads)
        return real(model, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    call_heads(bundle_of(tmp_path, spec_of()), np.ones((1, DIM), np.float32), threads=threads)
    assert given == [threads]


class TestTheAnswerOfAHead:
    """What a head may answer for five tiles."""

    def run(self, kind: str, logits: list[float], attention: list[float]) -> tuple[np.ndarray, np.ndarray]:
        model = HeadModel.__new__(HeadModel)
        classes = {"binary": ("a", "b"), "multiclass": ("a", "b", "c"), "survival": ()}[kind]
        model.spec = spec_of(kind=kind, classes=classes)
        model._session = SimpleNamespace(run=lambda names, given: [np.float32(logits), np.float32(attention)])
        return model.run(np.zeros((5, DIM), np.float32))

    @pytest.mark.parametrize(("kind", "counts"), [("binary", (1, 2)), ("multiclass", (3,)), ("survival", (1,))])
    def test_as_many_logits_as_its_kind_has(self, kind: str, counts: tuple[int, ...]) -> None:
        for count in range(1, 5):
            if count in counts:
                logits, attention = self.run(kind, [0.5] * count, [0.2] * 5)
                assert logits.shape == (count,) and attention.shape == (5,)
            else:
                with pytest.raises(BundleError, match=f"answers {count} logits"):
                    self.run(kind, [0.5] * count, [0.2] * 5)

    @pytest.mark.parametrize("tiles", [1, 4, 6])
    def test_one_attention_a_tile(self, tiles: int) -> None:
        with pytest.raises(BundleError, match=f"{tiles} attentions for 5 tiles"):
            self.run("binary", [0.0, 1.0], [0.2] * tiles)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_only_finite_values(self, value: float) -> None:
        for logits, attention in (([0.0, value], [0.2] * 5), ([0.0, 1.0], [0.2] * 4 + [value])):
            with pytest.raises(BundleError, match="not finite"):
                self.run("binary", logits, attention)
