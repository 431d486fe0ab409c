"""No engine scores before parity has accepted it here: one check, one verdict, remembered; and what happens after."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from support.bound_on_cpu import BoundOnCpu
from support.bundle_factory import make_bundle
from support.wrong_bundle import swap_golden

from stamp_deploy.bundle import load_bundle
from stamp_deploy.checks.acceptance import check_site
from stamp_deploy.engine import auto, load_engine, machine, open_engine, verdict
from stamp_deploy.engine.auto import Trial
from stamp_deploy.engine.base import BatchedEngine, OutOfMemory
from stamp_deploy.engine.cache import cache_dir
from stamp_deploy.engine.golden import check_engine, load_golden, turned
from stamp_deploy.engine.interface import EngineInfo, EngineOutput
from stamp_deploy.errors import BundleError, EngineError, ParityError

pytestmark = pytest.mark.usefixtures("own_cache")

BATCH = 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(make_bundle(tmp_path_factory.mktemp("verdict") / "bundle", golden_tiles=10))


@pytest.fixture
def wrong(tmp_path):
    """Golden outputs of another encoder, every hash in order."""
    return swap_golden(
        make_bundle(tmp_path / "bundle", golden_tiles=10), make_bundle(tmp_path / "other", seed=1, golden_tiles=10)
    )


class Told(BatchedEngine):
    """Answers with the golden outputs, by the tile; `spoil` may change an answer, and `room` may be short."""

    def __init__(self, bundle, batch=BATCH, *, depth=1, precision="fp32", spoil=lambda output: output, room=1000):
        super().__init__(
            EngineInfo("told", "1", "none", precision),
            tile_px=bundle.tile_px, embedding_dim=bundle.embedding_dim, pathways=len(bundle.pathways), batch=batch,
        )  # fmt: skip
        tiles, self.golden = load_golden(bundle)
        self.index = {tile.tobytes(): i for i, tile in enumerate(tiles)}
        self.depth, self.spoil, self.room, self.sizes, self.rejected = depth, spoil, room, [], False

    def _submit(self, piece):
        if len(piece) > self.room:
            raise OutOfMemory("no room")
        self.sizes.append(len(piece))
        rows = [self.index[tile.tobytes()] for tile in piece]
        return self.spoil(EngineOutput(self.golden.embedding[rows], self.golden.pathways[rows].copy()))

    def _collect(self, ticket):
        return ticket

    def _allocate(self):
        self.accepted = False

    def reject(self):
        self.rejected = True


def unchecked(*args, **kwargs):
    pytest.fail("the golden tiles were run although the verdict is known")


class TestNamedEngines:
    @pytest.mark.parametrize("name", ["onnxruntime", "openvino", "auto"])
    def test_one_that_is_wrong_never_scores(self, wrong, name):
        if name == "openvino":
            pytest.importorskip("openvino")
        with pytest.raises(ParityError) as caught:
            load_engine(wrong, name, batch=BATCH)
        assert caught.value.exit_code == 5

    @pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
    def test_the_check_costs_once(self, bundle, name, monkeypatch):
        if name == "openvino":
            pytest.importorskip("openvino")
        first = load_engine(bundle, name, batch=BATCH)
        assert first.accepted and first.info.why.startswith("asked for")
        first.close()
        monkeypatch.setattr(verdict, "time_and_check", unchecked)
        load_engine(bundle, name, batch=BATCH).close()

    def test_what_is_not_accepted_says_so(self, bundle):
        engine = open_engine(bundle, "onnxruntime", batch=BATCH)
        assert not engine.accepted
        engine.close()

    @pytest.mark.parametrize("change", ["packages", "driver_build", "tolerances"])
    def test_any_change_makes_it_check_again(self, bundle, change, monkeypatch):
        load_engine(bundle, "onnxruntime", batch=BATCH).close()
        if change == "packages":
            monkeypatch.setattr(machine, "package_versions", lambda: {"onnxruntime": "9.9"})
        elif change == "driver_build":
            monkeypatch.setattr(verdict, "machine_facts", lambda: {"gpus": [["a GPU", "9.0", "13.0", "build 2"]]})
        else:
            stricter = {**verdict.TOLERANCES}
            stricter["fp32"] = verdict.replace(stricter["fp32"], max_abs=2e-5)
            monkeypatch.setattr(verdict, "TOLERANCES", stricter)
        checks = []
        real = verdict.time_and_check
        monkeypatch.setattr(verdict, "time_and_check", lambda *args: checks.append(1) or real(*args))
        load_engine(bundle, "onnxruntime", batch=BATCH).close()
        assert checks == [1]

    def test_without_a_cache_the_process_remembers(self, bundle, tmp_path, monkeypatch):
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        monkeypatch.setenv("STAMP_CACHE_DIR", str(tmp_path / "open"))
        monkeypatch.setattr(verdict, "_uncached", {})
        load_engine(bundle, "onnxruntime", batch=BATCH).close()
        assert [kept.report for kept in verdict._uncached.values()] == [None], "a batch of slides keeps no reports"
        monkeypatch.setattr(verdict, "time_and_check", unchecked)
        load_engine(bundle, "onnxruntime", batch=BATCH).close()


class TestWhatIsKept:
    def failing(self, monkeypatch, failures, checks=None):
        """The check finds these failures."""
        report = type("Report", (), {"failures": failures})()

        def check(*given):
            if checks is not None:
                checks.append(1)
            return report, 5.0, 2.0

        monkeypatch.setattr(verdict, "time_and_check", check)

    def test_all_that_failed_and_how_fast_it_was(self, bundle, monkeypatch):
        failures = ("cosine_min is 0.5 and must be >= 0.9", "bias_max is 3 and must be <= 0.2")
        self.failing(monkeypatch, failures)
        verdict.accept(bundle, Told(bundle))
        monkeypatch.setattr(verdict, "time_and_check", unchecked)
        kept = verdict.accept(bundle, Told(bundle))
        assert (kept.failures, kept.tiles_per_second, kept.seconds) == (failures, 5.0, 2.0) and kept.report is None

    def test_an_acceptance_holds_until_something_changes(self, bundle, monkeypatch):
        assert verdict.accept(bundle, Told(bundle))
        (path,) = (cache_dir() / "verdicts").glob("*.json")
        entry = json.loads(path.read_text())
        monkeypatch.setattr(verdict, "time_and_check", unchecked)
        for seconds in (-1000 * verdict.EXPIRES_S, verdict.EXPIRES_S):  # of three years, and of tomorrow
            path.write_text(json.dumps({**entry, "checked_unix": entry["checked_unix"] + seconds}))
            assert verdict.accept(bundle, Told(bundle))

    def test_a_form_is_checked_anew_where_that_is_asked_for(self, bundle, monkeypatch):
        checks = []
        self.failing(monkeypatch, (), checks)
        for anew, count in ((False, 1), (False, 1), (True, 2)):
            engine, found = verdict.accept_a_form(bundle, Told(bundle), unchecked, anew=anew)
            assert found and engine.accepted and len(checks) == count


class TestOneVerdict:
    def test_parity_and_auto_ask_the_same(self, bundle, monkeypatch):
        site = check_site(bundle, batch=BATCH)
        assert {report.tiles for report in site.reports} == {10}
        monkeypatch.setattr(verdict, "time_and_check", unchecked)
        load_engine(bundle, batch=BATCH).close()

    def test_a_refusal_by_parity_is_one_for_auto(self, bundle, monkeypatch):
        def spoil(output):
            output.pathways[:, 0] *= -1
            return output

        monkeypatch.setattr(auto, "candidates", lambda: ("onnxruntime", "told"))
        real = open_engine
        for module in (auto, "stamp_deploy.checks.acceptance"):
            name = module if isinstance(module, str) else module.__name__
            monkeypatch.setattr(
                f"{name}.open_engine",
                lambda bundle, name, **kw: Told(bundle, spoil=spoil) if name == "told" else real(bundle, name, **kw),
            )
        assert not check_site(bundle, ("told",), batch=BATCH).passed
        monkeypatch.setattr(verdict, "time_and_check", unchecked)
        check_site_remembers = verdict.accept(bundle, Told(bundle, spoil=spoil))
        assert not check_site_remembers

    def test_an_engine_that_fails_in_one_precision_only_is_usable(self, bundle, monkeypatch):
        """bf16 kernels of one chip may not reproduce a bundle; fp32 of the same engine does."""
        from stamp_deploy.checks import acceptance

        def spoil(output):
            output.pathways[:, 0] *= -1
            return output

        def opened(bundle, name, *, precision, **kw):
            return Told(bundle, precision=precision, spoil=spoil if precision == "bf16" else lambda o: o)

        monkeypatch.setattr(acceptance, "open_engine", opened)
        monkeypatch.setattr(
            acceptance, "precisions_of", lambda bundle, name, wanted: (wanted,) if wanted else ("fp32", "bf16")
        )
        site = check_site(bundle, ("told",), batch=BATCH)
        assert site.passed and [bool(report) for report in site.reports] == [True, False]
        site.raise_if_failed()
        assert "FAIL" in acceptance.table(site) and "verdict    ACCEPTED" in acceptance.table(site)
        alone = check_site(bundle, ("told",), precision="bf16", batch=BATCH)
        with pytest.raises(ParityError):
            alone.raise_if_failed()


class TestTheDefaultPrecision:
    """OpenVINO's bf16 can be slower than its fp32: what was measured here decides, on any chip."""

    @pytest.mark.parametrize(("bf16", "chosen"), [(18.0, "fp32"), (29.5, "fp32"), (60.0, "bf16")])
    def test_the_faster_one(self, bundle, monkeypatch, bf16, chosen):
        speeds = {"fp32": 29.0, "bf16": bf16}
        monkeypatch.setattr("stamp_deploy.engine.load.precisions_of", lambda bundle, name, wanted=None: tuple(speeds))
        monkeypatch.setattr(auto, "precisions_of", lambda bundle, name, wanted=None: tuple(speeds))
        monkeypatch.setattr(auto, "_try", lambda b, name, batch, threads, p, device: Trial(name, p, speeds[p]))
        monkeypatch.setattr(auto, "_open", lambda b, name, batch, threads, p, device: Told(b, batch, precision=p))
        engine = load_engine(bundle, "openvino", batch=BATCH)
        assert engine.info.precision == chosen and "bf16" in engine.info.why

    def test_unmeasured_it_is_fp32(self, bundle):
        pytest.importorskip("openvino")
        engine = open_engine(bundle, "openvino", batch=BATCH)
        assert engine.info.precision == "fp32"
        engine.close()


class TestConversions:
    def test_a_rejected_one_is_deleted(self, wrong):
        engine = BoundOnCpu(wrong, batch=BATCH, precision="fp16")
        models = cache_dir() / "models"
        assert len(list(models.iterdir())) == 1 and not engine.accepted and engine.compiled
        assert not verdict.accept(wrong, engine)
        assert list(models.iterdir()) == []
        with pytest.raises(EngineError, match="closed"):
            engine.run(load_golden(wrong)[0][:1])

    def test_one_that_was_changed_in_the_cache_is_made_again(self, bundle):
        BoundOnCpu(bundle, batch=BATCH, precision="fp16").close()
        (model,) = (cache_dir() / "models").glob("*/encoder.onnx")
        good = model.read_bytes()
        model.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        engine = BoundOnCpu(bundle, batch=BATCH, precision="fp16")
        assert verdict.accept(bundle, engine) and model.read_bytes() == good
        engine.close()


class TestTheRows:
    def test_golden_tiles_fill_two_batches_on_every_lane(self, bundle):
        engine = Told(bundle, batch=16, depth=2)
        assert check_engine(bundle, engine)
        assert engine.sizes == [16] * 4 + [3]

    def test_a_tile_meets_other_rows_in_each_pass(self):
        index = turned(8, 8 * 5)
        assert all(sorted(index[i : i + 8]) == list(range(8)) for i in range(0, 40, 8))
        assert len({tuple(index[i : i + 8]) for i in range(0, 40, 8)}) == 5

    @pytest.mark.parametrize("row", [0, 9, 15])
    def test_one_wrong_row_of_a_full_batch_is_seen(self, bundle, row):
        def spoil(output):
            if len(output.embedding) == 16:
                output.embedding[row] *= -1
            return output

        assert not check_engine(bundle, Told(bundle, batch=16, spoil=spoil))

    def test_heads_are_part_of_the_check(self, bundle):
        """Embeddings within the limits of int8 that move a slide-level probability."""

        def spoil(output):
            return EngineOutput(output.embedding + np.float32(0.1), output.pathways)

        report = check_engine(bundle, Told(bundle, precision="int8", spoil=spoil))
        assert [failure.split(" ")[0] for failure in report.failures] == ["head_max_abs"]

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_an_engine_that_answers_with_no_numbers_fails_by_name(self, bundle, precision):
        """Overflow of one tile: a report that says so, and not an error about heads that have no answer."""

        def spoil(output):
            output.embedding[0, 3] = np.nan
            return output

        report = check_engine(bundle, Told(bundle, precision=precision, spoil=spoil))
        assert "embedding values are not finite in 4 of 15 tiles" in report.failures
        assert "head_max_abs is not a number" in report.failures

    def test_answers_of_the_batch_before_are_seen(self, bundle):
        """Ten golden tiles in batches of ten: without the turn every batch would hold the same."""
        kept = []

        def spoil(output):
            kept.append(output)
            return kept[-2] if len(kept) > 1 and len(output.embedding) == len(kept[-2].embedding) else output

        assert not check_engine(bundle, Told(bundle, batch=10, spoil=spoil))


class TestMidSlide:
    """Out of memory while scoring: what is compiled for the smaller batch passes the gate first."""

    @pytest.mark.parametrize("good", [True, False])
    def test_halving_passes_the_gate(self, bundle, good):
        def spoil(output):
            if not good and engine.piece < BATCH:
                output.pathways[:, 0] *= -1
            return output

        engine = Told(bundle, spoil=spoil)
        assert verdict.accept(bundle, engine) and engine.accepted
        engine.room = 2
        tiles = load_golden(bundle)[0]
        if good:
            found = list(engine.stream([tiles[:4], tiles[4:8]]))
            assert np.array_equal(np.concatenate([o.pathways for o in found]), engine.golden.pathways[:8])
            assert engine.accepted and engine.piece == 2
        else:
            with pytest.raises(ParityError, match="compiled again for smaller batches"):
                list(engine.stream([tiles[:4], tiles[4:8]]))
            assert engine.rejected

    def test_halving_during_the_check_is_checked_whole(self, bundle):
        engine = Told(bundle, room=2)
        assert verdict.accept(bundle, engine)
        (entry,) = (cache_dir() / "verdicts").glob("*.json")
        assert json.loads(entry.read_text())["failures"] == []
        assert engine.sizes == [2] * 7 + [1] + [2] * 7 + [1]  # in the new size from the start, once more

    def test_an_engine_without_a_bundle_has_no_gate(self, bundle):
        engine = Told(bundle, room=2)
        engine.run(load_golden(bundle)[0][:4])
        assert not engine.accepted


def test_the_first_fault_of_a_stream_is_the_one_told(bundle):
    """What is in flight after a fault is waited for, and fails again with other words."""

    class Faulty(Told):
        faults = 0

        def _collect(self, ticket):
            self.faults += 1
            raise EngineError(f"fault {self.faults}")

    engine = Faulty(bundle, depth=3)
    tiles = load_golden(bundle)[0]
    with pytest.raises(EngineError, match=r"^fault 1$"):
        list(engine.stream([tiles[:4]] * 6))
    assert engine.faults == 3


class TestExpiry:
    def choice(self):
        (path,) = (cache_dir() / "choices").glob("*.json")
        return path, json.loads(path.read_text())

    @pytest.mark.parametrize("transient", [True, False])
    def test_a_choice_made_while_an_engine_failed_is_made_again_a_day_later(self, bundle, monkeypatch, transient):
        bad = Trial("told", "fp32", 0.0, "fails (out of memory)", loaded=not transient)
        trials = {"onnxruntime": Trial("onnxruntime", "fp32", 10.0), "told": bad}
        made = []
        monkeypatch.setattr(auto, "candidates", lambda: tuple(trials))
        monkeypatch.setattr(auto, "_try", lambda b, name, *rest: made.append(name) or trials[name])
        load_engine(bundle, batch=BATCH).close()
        load_engine(bundle, batch=BATCH).close()
        assert len(made) == 2
        path, entry = self.choice()
        path.write_text(json.dumps({**entry, "chosen_unix": entry["chosen_unix"] - verdict.EXPIRES_S - 1}))
        load_engine(bundle, batch=BATCH).close()
        assert len(made) == (4 if transient else 2)

    def test_a_refusal_is_tried_again_a_day_later(self, wrong, monkeypatch):
        def refused():
            with pytest.raises(ParityError):
                load_engine(wrong, "onnxruntime", batch=BATCH)

        checks = []
        real = verdict.time_and_check
        monkeypatch.setattr(verdict, "time_and_check", lambda *args: checks.append(1) or real(*args))
        refused()
        refused()
        assert len(checks) == 1
        (path,) = (cache_dir() / "verdicts").glob("*.json")
        entry = json.loads(path.read_text())
        path.write_text(json.dumps({**entry, "checked_unix": entry["checked_unix"] - verdict.EXPIRES_S - 1}))
        refused()
        assert len(checks) == 2
        (path,) = (cache_dir() / "verdicts").glob("*.json")
        entry = json.loads(path.read_text())
        path.write_text(json.dumps({**entry, "checked_unix": entry["checked_unix"] - 23 * 3600}))
        refused()
        assert len(checks) == 2, "23 hours are no day"
        path.write_text(json.dumps({**entry, "checked_unix": entry["checked_unix"] + 3600}))
        refused()
        assert len(checks) == 3, "a time to come is no time"


def test_a_cached_choice_is_held_to_parity(bundle, monkeypatch):
    """The choice is remembered, the verdict is gone, and what is opened now is wrong: it must not score."""
    spoiled = []

    def spoil(output):
        if spoiled:
            output.pathways[:, 0] *= -1
        return output

    real = open_engine
    monkeypatch.setattr(auto, "candidates", lambda: ("onnxruntime", "told"))
    monkeypatch.setattr(
        auto, "open_engine", lambda b, name, **kw: Told(b, spoil=spoil) if name == "told" else real(b, name, **kw)
    )
    monkeypatch.setattr(auto, "_speed", lambda b, engine, v: 100.0 if engine.info.name == "told" else 1.0)
    assert load_engine(bundle, batch=BATCH).info.name == "told"
    spoiled.append(True)
    for path in (cache_dir() / "verdicts").iterdir():
        path.unlink()
    engine = load_engine(bundle, batch=BATCH)
    assert engine.info.name == "onnxruntime" and "told fp32: fails parity" in engine.info.why
    engine.close()


class TestEveryAnswerIsCounted:
    """An encoder that gives other rows than tiles would shift every score to another tile."""

    def doubled(self, tmp_path, when=None):
        """Declares [batch, 16] and answers with 2N rows, or with N - 1 where `when` says so."""
        import onnx
        from onnx import helper
        from support.wrong_bundle import swap_golden

        path = make_bundle(tmp_path / "doubled", golden_tiles=10)
        model = onnx.load(path / "encoder.onnx")
        for node in model.graph.node[-2:]:
            name = node.output[0]
            node.output[0] = f"{name}_once"
            if node.input[0] == "embedding":
                node.input[0] = "embedding_once"
        for name in ("embedding", "pathways"):
            model.graph.node.append(helper.make_node("Concat", [f"{name}_once"] * 2, [name], axis=0))
        onnx.save(model, path / "encoder.onnx")
        return swap_golden(path, path_of(tmp_path))

    @pytest.mark.parametrize("name", ["onnxruntime", "openvino", "auto"])
    def test_a_graph_with_two_rows_a_tile(self, tmp_path, name):
        if name == "openvino":
            pytest.importorskip("openvino")
        with pytest.raises(BundleError, match="answers") as caught:
            load_engine(self.doubled(tmp_path), name, batch=BATCH)
        assert caught.value.exit_code == 5
        said = re.search(r"answers (\d) tiles with embeddings \((\d), 16\)", str(caught.value))
        assert said is not None and int(said[2]) == 2 * int(said[1])

    @pytest.mark.parametrize("depth", [1, 2])
    @pytest.mark.parametrize("cut", [slice(1, None), slice(None, -1)])
    def test_on_every_call(self, bundle, depth, cut):
        calls = []

        def spoil(output):
            calls.append(1)
            return EngineOutput(output.embedding[cut], output.pathways[cut]) if len(calls) == 3 else output

        engine = Told(bundle, spoil=spoil, depth=depth)
        tiles = load_golden(bundle)[0]
        with pytest.raises(BundleError, match=r"answers 4 tiles with embeddings \(3, 16\)"):
            list(engine.stream([tiles[:4]] * 4))

    def test_in_pieces_too(self, bundle):
        def spoil(output):
            return EngineOutput(output.embedding, output.pathways[:1])

        engine = Told(bundle, room=2, spoil=spoil)
        with pytest.raises(BundleError, match=r"pathways \(1, 4\)"):
            engine.run(load_golden(bundle)[0][:4])


def path_of(tmp_path):
    return make_bundle(tmp_path / "as it should be", golden_tiles=10)


class TestShiftAndScale:
    """Correlations and cosines do not see these."""

    @pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "fp8"])
    @pytest.mark.parametrize(
        ("what", "spoil"),
        [
            ("bias_max", lambda o: EngineOutput(o.embedding, o.pathways + 1)),
            ("bias_max", lambda o: EngineOutput(o.embedding, o.pathways - np.float32([0, 0, 0.5, 0]))),
            ("slope_max", lambda o: EngineOutput(o.embedding, o.pathways * 1.25)),
            ("slope_max", lambda o: EngineOutput(o.embedding, o.pathways * np.float32([1, 1, 1, 0.8]))),
            ("norm_max", lambda o: EngineOutput(o.embedding * 1.2, o.pathways)),
        ],
        ids=["all shifted", "one shifted", "all stretched", "one shrunk", "embeddings stretched"],
    )
    def test_is_refused_in_every_precision(self, bundle, precision, what, spoil):
        good = Told(bundle, precision=precision)
        assert check_engine(bundle, good)
        report = check_engine(bundle, Told(bundle, precision=precision, spoil=spoil))
        assert not report and any(failure.startswith(what) for failure in report.failures)
