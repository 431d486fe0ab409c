"""The command as a user meets it: help, exit codes, inspect, doctor, and infer from end to end."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.bundle_factory import make_bundle
from support.cli_runner import Runner, runner  # noqa: F401 - a fixture
from support.slide_factory import texture, write_slide

from stamp_deploy import __version__
from stamp_deploy.cli import SECTIONS, SUMMARIES, cli
from stamp_deploy.command import Command, Option
from stamp_deploy.config import DEFAULT_WRITERS
from stamp_deploy.writers.formats import FORMATS

QUICK = ("--engine", "onnxruntime")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle", tile_px=224, mpp=0.5)


def test_help_imports_nothing_heavy() -> None:
    """What keeps --help below 0.3 s: click, and nothing that computes."""
    code = (
        "import sys; from stamp_deploy.cli import cli\n"
        "try: cli.main(['--help'], standalone_mode=False)\n"
        "except SystemExit: pass\n"
        "ours = {m for m in sys.modules if m.startswith('stamp_deploy.')}\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'numpy', 'scipy', 'rich', 'torch', 'matplotlib',"
        " 'onnxruntime', 'openslide', 'pyvips', 'h5py', 'pyarrow', 'PIL', 'jinja2', 'cryptography', 'tifffile'}))\n"
        "print(sorted(ours))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-2] == "[]"
    light = ("cli", "errors", "system", "system.names", "system.offline", "system.user_cache")
    assert set(json.loads(out.splitlines()[-1].replace("'", '"'))) <= {f"stamp_deploy.{name}" for name in light}
    for verb in ("infer", "inspect", "doctor", "batch", "verify"):
        assert f"  {verb} " in out


def test_scoring_does_not_import_the_statistics_of_scipy() -> None:
    """They take half a second, which every slide scored alone would pay."""
    code = "import sys, stamp_deploy.infer, stamp_deploy.api; print('scipy.stats' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_verb_has_a_summary_and_a_place() -> None:
    placed = {name for names in SECTIONS.values() for name in names}
    context = cli.make_context("stamp-deploy", [], resilient_parsing=True)
    for name in cli.list_commands(context):
        assert name in placed, f"`{name}` belongs in a section of the help"
        assert name in cli.commands or name in SUMMARIES, f"`{name}` needs a summary for the help"


def test_version_and_usage_errors(runner: Runner) -> None:  # noqa: F811
    assert runner("--version").out == f"stamp-deploy, version {__version__}\n"
    for words in (("infer",), ("no-such-verb",), ("inspect",), ("infer", "a", "--mpp", "many")):
        done = runner(*words)
        assert done.code == 2
        assert "Error" in done.err


def test_a_missing_extra_is_named(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A verb whose package is missing, when it is loaded or later, says which extra to install."""

    def needs_torch() -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")

    monkeypatch.setitem(cli.commands, "train", click.Command("train", callback=needs_torch))
    done = runner("train")
    assert (done.code, done.err) == (
        2,
        "stamp-deploy: `train` needs the Python package torch - pip install 'stamp-deploy[train]'\n",
    )


def test_infer_on_a_real_slide(runner: Runner, cmu_slide: Path, bundle: Path, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "out"
    done = runner("infer", cmu_slide, "--bundle", bundle, "-o", out, "--json", *QUICK)
    assert done.code == 0, done.err
    assert done.err == ""
    record = json.loads(done.out)
    assert record == json.loads((out / "result.json").read_text())
    tiles = record["tiles"]
    assert tiles["ok"] > 40
    assert tiles["ok"] + tiles["background"] == tiles["grid"]
    assert record["slide"]["route"] == "jpeg-tiff"
    assert record["slide"]["mpp_source"] == "vendor"
    assert record["software"]["stamp-deploy"] == __version__
    assert {"start_up", "open_and_tissue", "engine", "heads", "tiler_decode", "write"} <= set(record["timing_seconds"])
    assert record["timing_seconds"]["start_up"] > 0
    assert record["timing_seconds"]["write"] > 0
    with h5py.File(out / "tiles.h5") as file:
        assert file["features"].shape == (tiles["ok"], 16)
        assert file["coords"].shape == (tiles["ok"], 2)
        assert file["coords"].attrs["patch_size"] == 224
    assert pq.read_table(out / "tiles.parquet").num_rows == tiles["ok"]
    assert len(list((out / "maps").glob("*.png"))) == 4
    with Image.open(out / "overview.png") as sheet:
        assert min(sheet.size) > 400
    again = runner("infer", cmu_slide, "--bundle", bundle, "-o", out, *QUICK)
    assert again.code == 2
    assert "--overwrite" in again.err
    text = runner("infer", cmu_slide, "--bundle", bundle, "-o", out, "--overwrite", "--write", "json", *QUICK).out
    for word in ("slide ", "read ", "engine ", "time ", "call ", "result ", "P(MSI)", "limited by"):
        assert word in text


def test_infer_on_jpeg_2000_with_a_stated_mpp(runner: Runner, data_dir: Path, bundle: Path, tmp_path: Path) -> None:  # noqa: F811
    slide = data_dir / "slides" / "tcga-cr-7395-01a-01-ts1.svs"
    done = runner("infer", slide, "--bundle", bundle, "-o", tmp_path / "out", "--mpp", "0.25", "--json", *QUICK)
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["slide"]["route"] == "codec-tiff"
    assert record["slide"]["mpp_source"] == "command-line"
    assert record["tiles"]["ok"] > 30


def test_infer_on_a_large_slide(runner: Runner, cmu_slide: Path, make_wsi: Path, bundle: Path, tmp_path: Path) -> None:  # noqa: F811
    """40x with levels 1/4/16: read from level 0 at half scale, whatever its glass."""
    slide = tmp_path / "large.svs"
    size = ("--tiles", "60x48", "--mpp", "0.25", "--tissue", "0.35", "--recode", "420")
    subprocess.run([sys.executable, make_wsi, cmu_slide, slide, *size], check=True, capture_output=True)
    done = runner("infer", slide, "--bundle", bundle, "-o", tmp_path / "out", "--json", "--write", "json", *QUICK)
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["read_plan"]["dct_scale"] == 2
    assert record["tiles"]["unreadable"] == 0
    assert 100 < record["tiles"]["ok"] < record["tiles"]["grid"] / 2


def test_a_conflict_of_resolutions_is_in_the_result(
    runner: Runner,  # noqa: F811
    cmu_slide: Path,
    bundle: Path,
    tmp_path: Path,
) -> None:
    done = runner("infer", cmu_slide, "--bundle", bundle, "-o", tmp_path / "out", "--mpp", "0.25", "--json", *QUICK)
    assert "0.25 um/px by --mpp, but 0.499 by vendor tag aperio.MPP" in json.loads(done.out)["warnings"][0]


def test_what_is_wrong_with_the_command_is_said_before_the_slide_is_read(
    runner: Runner,  # noqa: F811
    cmu_slide: Path,
    bundle: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    out = tmp_path / "out"
    for more, code, cause in (
        (("-o", out, "--write", "json,nonsense"), 2, "unknown output format 'nonsense'"),
        (("-o", out, "--write", "dicom-sr"), 2, "DICOM"),
        (("-o", out, "--engine", "nonsense"), 2, "nonsense"),
        (("-o", out, "--batch", "0"), 2, "--batch 0"),
        (("-o", out, "--max-unreadable", "2"), 2, "--max-unreadable"),
        (("-o", tmp_path / "taken"), 2, "holds files"),
        (("-o", tmp_path / "taken" / "notes.txt" / "out"), 6, "notes.txt is not a folder"),
        (("-o", tmp_path / ("x" * 300)), 6, "cannot write"),
    ):
        done = runner("infer", cmu_slide, "--bundle", bundle, *more)
        assert done.code == code, done.err
        assert cause in done.err
        assert len(done.err.splitlines()) == 1
    done = runner("infer", cmu_slide, "--bundle", tmp_path / "none", "-o", out)
    assert done.code == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["taken"]
    assert (tmp_path / "taken" / "notes.txt").read_text() == "mine"


def test_sigterm_leaves_nothing_behind(bundle: Path, tmp_path: Path) -> None:
    """Stopped as soon as tiles are being decoded: no result, no staging folder, code 130."""
    slide = write_slide(tmp_path / "slide.svs", np.tile(texture(1024, 1024), (6, 6, 1)))
    command = [sys.executable, "-m", "stamp_deploy.cli", "--log-level", "info", "infer", slide, "--bundle", bundle]
    with subprocess.Popen(
        [*map(str, command), "-o", str(tmp_path / "out"), "--threads", "1", *QUICK],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if '"prepared"' in line:
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert "nothing was left half-written" in rest
    assert [p.name for p in tmp_path.iterdir()] == ["slide.svs"]


def test_inspect_a_real_slide(runner: Runner, cmu_slide: Path) -> None:  # noqa: F811
    text = runner("inspect", cmu_slide).out
    for line in (
        "slide     CMU-1-Small-Region.svs (1.9 MB)",
        "size      2220 x 2967 px, 1.11 x 1.48 mm",
        "mpp       0.499 x 0.499 um/px, by vendor",
        "evidence  vendor tag aperio.MPP: 0.499 x 0.499 um/px, accepted",
        "route     jpeg-tiff: ",
        "reading   level 0",
        "tissue    3",
        "tiles     5",
    ):
        assert f"\n{line}" in f"\n{text}"
    assert str(cmu_slide.parent) not in text
    facts = json.loads(runner("inspect", cmu_slide, "--json", "--target-mpp", "1", "--tile-px", "256").out)
    assert facts["reading"]["dct_scale"] == 2
    assert facts["mpp"] == {"x": 0.499, "y": 0.499, "source": "vendor"}
    assert facts["problem"] is None
    coarse = json.loads(runner("inspect", cmu_slide, "--json", "--target-mpp", "0.25").out)
    assert "coarser" in coarse["problem"]


def test_doctor(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    done = runner("doctor")
    assert done.code == 0
    for word in ("openslide", "libvips", "compiled tiler", "onnxruntime", "self-test", "this machine is ready"):
        assert word in done.out
    assert runner("doctor", "--json").out.startswith('{\n  "ok": true')

    def broken() -> tuple[str, str]:
        raise OSError("libjpeg.so.62: cannot open shared object file")

    monkeypatch.setattr("stamp_deploy.checks.doctor._tiler", broken)
    done = runner("doctor")
    assert done.code == 1
    assert "fail  compiled tiler  OSError: libjpeg.so.62" in done.out
    assert "not ready" in done.out


def own_commands() -> dict[str, click.Command]:
    """Every verb, and the verbs inside its groups, by the words that name them."""
    context = cli.make_context("stamp-deploy", [], resilient_parsing=True)
    found: dict[str, click.Command] = {}
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        inner = command.commands if isinstance(command, click.Group) else {}
        found |= {f"{name} {word}": part for word, part in inner.items()} or {name: command}
    return found


@pytest.mark.parametrize("name", own_commands())
def test_every_help_groups_its_options_and_ends_with_examples_that_parse(name: str, runner: Runner) -> None:  # noqa: F811
    command = own_commands()[name]
    assert isinstance(command, Command)
    done = runner(*name.split(), "--help")
    assert done.code == 0
    assert command.examples
    heading = done.out.index("Examples:")
    for example in command.examples:
        assert f"  stamp-deploy {example}" in done.out[heading:]
        words = shlex.split(example)
        assert words[: len(name.split())] == name.split()
        context = click.Context(command, info_name=name)
        _, rest, _ = command.make_parser(context).parse_args(words[len(name.split()) :])
        assert rest == []
    for param in command.params:
        if isinstance(param, Option):
            assert f"{param.group}:\n" in done.out
            assert param.help, f"{name} {param.opts[-1]} needs a help"


@pytest.mark.parametrize("name", own_commands())
def test_of_many_options_each_has_a_group_and_each_help_is_a_sentence(name: str) -> None:
    """One that says no more than what its value belongs to ("Of the bootstrap.") does not say what the value is."""
    options = [param for param in own_commands()[name].params if isinstance(param, click.Option)]
    if len(options) > 3:
        assert not [o.opts[-1] for o in options if getattr(o, "group", "Options") == "Options"]
    for each in options:
        text = (each.help or "").split("  [default")[0]
        assert (text.endswith((".", "?")) and text[0].isupper()) or text.startswith(FIRST_WORDS), (
            f"{each.opts[-1]}: {text}"
        )
        assert not text.startswith("Of "), f"{each.opts[-1]}: {text}"


FIRST_WORDS = ("auto, ", "auto: ", "cpu ", "cpu,", "fp32, ", "restrict: ", "srgb: ")
"""Values that a help starts with."""


@pytest.mark.parametrize("name", ["dicomweb", "dimse", "cohort"])
def test_no_summary_in_the_list_of_a_group_is_cut(name: str, runner: Runner) -> None:  # noqa: F811
    assert "..." not in runner(name, "--help").out.partition("Commands:")[2]


def test_write_lists_every_format(runner: Runner) -> None:  # noqa: F811
    for verb in ("infer", "batch", "watch", "bench"):
        words = set(re.findall(r"[a-z0-9-]+", runner(verb, "--help").out))
        assert set(FORMATS) <= words
    listed = runner("formats").out
    known = json.loads(runner("formats", "--json").out)
    assert list(known) == list(FORMATS)
    for name, form in FORMATS.items():
        assert re.search(rf"^{name} +{re.escape(form.files)} ", listed, re.MULTILINE)
        assert known[name]["default"] == (name in DEFAULT_WRITERS)


def test_the_report_is_a_default_format() -> None:
    assert "report" in DEFAULT_WRITERS


def test_models_are_listed_without_torch() -> None:
    code = (
        "import sys, json\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'timm', 'peft'): raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Refuse()); sys.argv = ['stamp-deploy', 'models', *sys.argv[1:]]\n"
        "from stamp_deploy.cli import main\nmain()"
    )

    def listed(*words: str) -> str:
        return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True).stdout

    known = json.loads(listed("--json"))
    assert known["uni2-h"]["share_merged"] is False
    assert known["h-optimus-0"]["share_merged"] is True
    rows = listed()
    assert re.search(r"^uni2-h +CC-BY-NC-ND-4.0, gated +no +681.4 +1536 +224 +0.5", rows, re.MULTILINE)
    assert re.search(r"^h-optimus-0 +Apache-2.0 +yes ", rows, re.MULTILINE)
    assert all(re.search(rf"^{name} ", rows, re.MULTILINE) for name in known)
