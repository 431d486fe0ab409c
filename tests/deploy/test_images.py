"""The Dockerfiles, as far as they can be checked without an engine to build them: paths, extras, users, promises."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from support.bundle_factory import make_bundle
from test_batch import COMMAND, make_slide

from stamp_deploy.atomic import is_done

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "deploy" / "docker").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, continued lines joined, comments dropped."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word.upper(), rest) for word, _, rest in (line.partition(" ") for line in text.splitlines()) if word]


def last(steps: list[tuple[str, str]], word: str) -> str:
    """The arguments of the last such instruction."""
    return next(rest for name, rest in reversed(steps) if name == word)


def sent_to_the_builder() -> set[str]:
    """Top-level names that .dockerignore lets through."""
    lines = (ROOT / ".dockerignore").read_text().split()
    assert "*" in lines, "everything is left out that is not named"
    return {line[1:] for line in lines if line.startswith("!")}


def test_there_is_one_a_flavour() -> None:
    assert [path.name for path in FILES] == ["cpu.Dockerfile", "cuda-tensorrt.Dockerfile"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
class TestDockerfile:
    def test_copies_what_exists_and_is_sent(self, path: Path) -> None:
        sources = [
            name
            for word, rest in instructions(path)
            if word == "COPY" and "--from" not in rest
            for name in rest.split()[:-1]
        ]
        assert {"setup.py", "csrc", "stamp_deploy", "training", "export"} <= set(sources), "setup.py needs them all"
        for name in sources:
            assert (ROOT / name).exists(), name
            assert name.split("/")[0] in sent_to_the_builder(), name

    def test_extras_exist_and_hold_no_torch(self, path: Path) -> None:
        extras = [name for _, rest in instructions(path) for found in re.findall(r"'\.\[(.*?)\]'", rest)
                  for name in found.split(",")]  # fmt: skip
        assert extras
        for name in extras:
            assert not any("torch" in wanted for wanted in PROJECT["optional-dependencies"][name]), name

    def test_runs_as_nobody_special_with_volumes(self, path: Path) -> None:
        steps = instructions(path)
        user = last(steps, "USER")
        assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user), "a number: Kubernetes must see that it is not root"
        assert f"--uid {user.split(':')[0]} " in path.read_text()
        assert {"/input", "/output"} <= set(json.loads(last(steps, "VOLUME")))
        assert json.loads(last(steps, "ENTRYPOINT"))[0] in PROJECT["scripts"]
        words = [word for word, _ in steps]
        assert words.index("USER") > max(i for i, word in enumerate(words) if word in ("RUN", "COPY"))

    def test_writes_nowhere_but_tmp_and_its_volumes(self, path: Path) -> None:
        steps = instructions(path)
        settings = dict(re.findall(r"(\w+)=(\S+)", last(steps, "ENV")))
        places = ("/tmp", *json.loads(last(steps, "VOLUME")))
        for name in ("HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
            assert settings[name].startswith(places), name
        assert settings["PYTHONDONTWRITEBYTECODE"] == "1"
        assert settings["PATH"].startswith("/opt/stamp/bin:")

    def test_usage_is_offline_and_read_only(self, path: Path) -> None:
        usage = path.read_text().split("ARG ")[0]
        for option in ("--network none", "--read-only", "--tmpfs /tmp", "--cap-drop ALL", "/input:ro", "/bundle:ro"):
            assert option in usage, option

    def test_leaves_no_lists_and_fetches_nothing_by_hand(self, path: Path) -> None:
        for word, rest in instructions(path):
            assert word != "ADD" and not re.search(r"\b(curl|wget|git clone)\b", rest)
            if word == "RUN" and "apt-get install" in rest:
                assert "--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists/*" in rest
            if "pip install" in rest:
                assert rest.count("pip install") == rest.count("--no-cache-dir")


def test_kubernetes_example_uses_the_image_as_it_is() -> None:
    text = (ROOT / "deploy" / "kubernetes" / "batch-job.yaml").read_text()
    (user,) = {last(instructions(path), "USER").split(":")[0] for path in FILES}
    assert f"runAsUser: {user}" in text and "readOnlyRootFilesystem: true" in text
    assert "image: stamp-deploy:cpu" in text and "-t stamp-deploy:cpu" in FILES[0].read_text()
    for folder in ("/input", "/output", "/bundle", "/tmp"):
        assert f"mountPath: {folder}" in text, folder


def test_a_batch_runs_without_network_on_a_read_only_root(tmp_path: Path) -> None:
    """What the images promise, tried without an engine: own network and mount namespaces, root remounted read-only."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("root rights and unshare (util-linux) are needed to confine a batch")
    slide, bundle = make_slide(tmp_path / "s.tif", 1), make_bundle(tmp_path / "bundle")
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir()
    scratch.mkdir()
    command = [*COMMAND, "batch", slide, "--bundle", bundle, "-o", out, "--engine", "onnxruntime"]
    script = """set -e
        out=$1 scratch=$2; shift 2
        mount --make-rprivate /
        mount --bind "$out" "$out"
        mount -t tmpfs tmpfs "$scratch"
        mount -o remount,bind,ro /
        ! touch /forbidden 2>/dev/null
        exec "$@" --write json,hdf5,heatmaps,report
    """
    settings = {"HOME": str(scratch), "TMPDIR": str(scratch), "MPLCONFIGDIR": str(scratch), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-c", script, "sh", out, scratch, *command],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip(f"namespaces are not permitted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    (key,) = [row["key"] for row in json.loads((out / "batch.json").read_text())["slides"]]
    assert is_done(out / key) and (out / key / "report.html").stat().st_size > 10_000
