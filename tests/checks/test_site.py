"""Site acceptance: parity, build, sign and verify, from the command line."""

from __future__ import annotations

import json
import subprocess
from importlib.util import find_spec

import pytest
from click.testing import CliRunner
from support.bundle_factory import make_bundle
from support.wrong_bundle import swap_golden

from stamp_deploy.atomic import staged_directory
from stamp_deploy.bundle import load_bundle
from stamp_deploy.checks.verify import verify_path
from stamp_deploy.errors import BundleError, DataError, EngineError, ParityError, UsageError
from stamp_deploy.verbs import bundle as acceptance


def run(command, *arguments):
    """The command's output; errors are raised as they are."""
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False, standalone_mode=True).output


@pytest.fixture
def folder(tmp_path):
    return make_bundle(tmp_path / "bundle", golden_tiles=12)


@pytest.fixture
def keys(tmp_path):
    """A key pair made as the help text says."""
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


class TestParity:
    def test_record_and_table(self, folder, tmp_path, keys):
        out = tmp_path / "site.json"
        who = ("--signed-off-by", "A. Physicist", "--sign", keys[0])
        shown = run(acceptance.parity, folder, "--engine", "onnxruntime", "-o", out, *who)
        assert "verdict    ACCEPTED" in shown and "golden -> onnxruntime fp32" in shown
        record = json.loads(out.read_text())
        assert record["passed"] is True and record["signed_off_by"] == "A. Physicist"
        assert record["bundle"]["sha256"] == load_bundle(folder).sha256
        (engine,) = record["engines"]
        assert engine["metrics"]["head_max_abs"] < 1e-4 and engine["tiles"] == 12
        assert engine["tolerance"]["reason"] and engine["tiles_per_second"] > 0
        assert out.with_suffix(".txt").read_text() in shown + "\n"
        assert "fits" in run(acceptance.verify, out, "--require-signature", keys[1])
        out.write_text(out.read_text().replace("Physicist", "Physicisy"))
        with pytest.raises(BundleError, match="does not fit"):
            verify_path(out, keys[1])

    def test_a_wrong_machine_is_not_accepted(self, folder, tmp_path):
        swap_golden(folder, make_bundle(tmp_path / "other", seed=1, golden_tiles=12))
        out = tmp_path / "site.json"
        with pytest.raises(ParityError, match="does not reproduce the golden outputs"):
            run(acceptance.parity, folder, "--engine", "onnxruntime", "-o", out)
        record = json.loads(out.read_text())
        assert record["passed"] is False and record["engines"][0]["failures"]
        assert "NOT ACCEPTED" in out.with_suffix(".txt").read_text()

    @pytest.mark.parametrize("words", [(), ("--engine", "auto")])
    def test_every_installed_engine_by_default(self, folder, words):
        shown = run(acceptance.parity, folder, *words)
        assert "golden -> onnxruntime fp32" in shown
        assert ("golden -> openvino" in shown) == (find_spec("openvino") is not None)

    def test_a_named_engine_must_load(self, folder):
        with pytest.raises(EngineError, match="no engine 'magic'"):
            run(acceptance.parity, folder, "--engine", "magic")

    def test_signing_needs_a_record(self, folder, keys):
        with pytest.raises(UsageError, match="-o FILE"):
            run(acceptance.parity, folder, "--sign", keys[0])


class TestSignature:
    def test_sign_and_demand(self, folder, keys):
        with pytest.raises(BundleError, match="there is none"):
            run(acceptance.verify, folder, "--require-signature", keys[1])
        assert "signed" in run(acceptance.sign, folder, "--key", keys[0])
        assert "signed by key.pub" in run(acceptance.verify, folder, "--require-signature", keys[1])
        run(acceptance.parity, folder, "--engine", "onnxruntime", "--require-signature", keys[1])

    def test_only_a_whole_bundle_is_signed(self, folder, keys):
        (folder / "card.md").write_text("other")
        with pytest.raises(BundleError, match=r"card\.md"):
            run(acceptance.sign, folder, "--key", keys[0])
        assert not (folder / "bundle.json.sig").exists()

    def test_a_public_key_cannot_sign(self, folder, keys):
        with pytest.raises(UsageError, match="private key"):
            run(acceptance.sign, folder, "--key", keys[1])


class TestVerifyResult:
    @pytest.fixture
    def result(self, tmp_path):
        with staged_directory(tmp_path / "result", hashes=True) as staging:
            (staging / "result.json").write_text(json.dumps({"bundle": {"sha256": "ab" * 32}}))
            (staging / "maps").mkdir()
            (staging / "maps" / "a b.png").write_bytes(b"picture")
        return tmp_path / "result"

    def test_whole(self, result):
        assert "2 files are as written; scored with bundle abababababab" in run(acceptance.verify, result)
        done = subprocess.run(["sha256sum", "-c", "DONE"], cwd=result, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda r: (r / "maps" / "a b.png").write_bytes(b"pictury"), "has been changed"),
            (lambda r: (r / "result.json").write_text("{}"), "has been changed"),
            (lambda r: (r / "maps" / "a b.png").unlink(), "is missing"),
            (lambda r: (r / "more.txt").write_text("x"), "was added later"),
            (lambda r: (r / "DONE").unlink(), "never finished"),
            (lambda r: (r / "DONE").write_text("done\n"), "holds no hashes"),
            (lambda r: (r / "DONE").write_text("0" * 64 + "  ../../etc/passwd\n"), "holds no hashes"),
        ],
        ids=["picture", "record", "missing", "added", "unfinished", "old", "outside"],
    )
    def test_altered(self, result, change, message):
        change(result)
        with pytest.raises(DataError, match=message):
            verify_path(result)

    def test_neither(self, tmp_path):
        with pytest.raises(UsageError, match="neither a bundle nor a result"):
            verify_path(tmp_path)


class TestBuild:
    @pytest.mark.skipif(
        find_spec("tensorrt_rtx_bindings") is None, reason="stamp-deploy[tensorrt-rtx] is not installed"
    )
    @pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
    def test_tensorrt_rtx_builds_for_real(self, folder, precision, tmp_path, monkeypatch):
        from stamp_deploy.engine.cuda import visible_gpus
        from stamp_deploy.engine.tensorrt_plan import load_module

        if visible_gpus():
            pytest.skip("a GPU is here: tests/engine/test_engines.py builds and runs on it")
        monkeypatch.setenv("STAMP_CACHE_DIR", str(tmp_path / "cache"))
        shown = run(acceptance.build, folder, "--engine", "tensorrt-rtx", "--precision", precision, "--batch", "4")
        assert f"built   tensorrt-rtx {precision}, batch 4" in shown and "not checked" in shown
        (plan,) = (tmp_path / "cache" / "plans").glob("*/plan.bin")
        assert plan.stat().st_size > 1000
        facts = json.loads((plan.parent / "plan.json").read_text())
        assert facts["version"] == load_module("tensorrt-rtx").__version__ and facts["accepted"] is False

    def test_tensorrt_needs_its_gpu(self, folder):
        from stamp_deploy.engine.cuda import visible_gpus

        if visible_gpus():
            pytest.skip("a GPU is here")
        with pytest.raises(EngineError, match="no GPU can be seen"):
            run(acceptance.build, folder, "--engine", "tensorrt")

    def test_other_engines_are_not_built(self, folder):
        assert (
            "Invalid value for '--engine'"
            in CliRunner().invoke(acceptance.build, [str(folder), "--engine", "x"]).output
        )
