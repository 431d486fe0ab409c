"""Tables of the documentation say what the code does: limits, settings, models, formats, fields, keys, exit codes."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import pytest

from stamp_deploy.cli import SECTIONS
from stamp_deploy.errors import ExitCode
from stamp_deploy.system.isolation import STOPPED

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def table(page: Path, first_cell: str) -> list[list[str]]:
    """The rows below a header whose first cell is this one, cells stripped of blanks and of markers."""
    lines = re.sub(r"<!--.*?-->", "", page.read_text()).splitlines()
    at = next(
        number for number, line in enumerate(lines) if line.replace("| |", "|  |").startswith(f"| {first_cell} |")
    )
    rows = []
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def names(cells: Iterable[str]) -> list[str]:
    """What stands in backquotes, in order."""
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_limits_of_parity() -> None:
    from stamp_deploy.engine.tolerances import TOLERANCES

    rows = table(DOCS / "parity.md", "number")
    columns = ("fp32", "fp16", "bf16", "int8")
    assert TOLERANCES["fp8"] == dataclasses.replace(TOLERANCES["int8"], reason=TOLERANCES["fp8"].reason)
    told: dict[str, dict[str, float | None]] = {name: {} for name in columns}
    for cells in rows:
        for column, cell in zip(columns, cells[1:], strict=True):
            told[column][names(cells)[0]] = None if cell == "not judged" else float(cell)
    for column in columns:
        limits = dataclasses.asdict(TOLERANCES[column])
        del limits["reason"]
        assert told[column] == limits


def test_settings_of_training() -> None:
    pytest.importorskip("pydantic")
    from stamp_deploy.training.config import TrainConfig

    defaults = {name: field.default for name, field in TrainConfig.model_fields.items()}
    told: dict[str, str] = {}
    for cells in table(DOCS / "training.md", "setting"):
        settings, values = names(cells[:1]), cells[1].replace("`", "").split(", ")
        told.update(zip(settings, values, strict=True))
    assert len(told) >= 20
    for name, value in told.items():
        default = defaults[name]
        if isinstance(default, bool):
            assert value == {False: "off", True: "on"}[default], name
        elif isinstance(default, str):
            assert value == default, name
        else:
            assert float(value) == default, name


def test_settings_of_a_cohort() -> None:
    pytest.importorskip("pydantic")
    from stamp_deploy.training.cohort.config import CohortConfig

    told = {cells[0]: cells[1] for cells in table(DOCS / "cohort.md", "key of the cohort")}
    defaults = {
        name: json.dumps(list(field.default) if isinstance(field.default, tuple) else field.default)
        for name, field in CohortConfig.model_fields.items()
    }
    assert told == defaults


def test_models() -> None:
    pytest.importorskip("torch")
    from stamp_deploy.training.model.registry import REGISTRY

    told: set[str] = set()
    for model, embedding, parameters, licence in table(DOCS / "training.md", "`pfm`"):
        ids = [f"kaiko{name}" if name.startswith("-") else name for name in names([model])]
        told |= set(ids)
        rows = [REGISTRY[name] for name in ids]
        if embedding:
            assert {row.dim for row in rows} == {int(number) for number in re.findall(r"\d+", embedding)}, model
            told_m = [int(number) for number in re.findall(r"\d+", parameters)]
            assert all(min(abs(row.params_m - number) for number in told_m) <= 0.5 for row in rows), model
            assert all(min(abs(row.params_m - number) for row in rows) <= 0.5 for number in told_m), model
            assert all(("mean" in row.embed) == ("mean" in embedding) for row in rows), model
        for row, text in zip(rows, licence.split(" / ") * (1 if "/" in licence else len(rows)), strict=True):
            family = row.licence.split("-4.0")[0].split(",")[0].split(" ")[0]
            assert family in text or ("no derivatives" in text and "ND" in family) or "random" in text, (model, text)
    assert told == set(REGISTRY)


def test_models_whose_merged_weights_may_be_shared() -> None:
    pytest.importorskip("torch")
    from stamp_deploy.training.model.registry import REGISTRY

    rows = {cells[0]: cells[1].lower() for cells in table(ROOT / "README.md", "")}
    free = rows["merged weights may be shared"].split(", ")
    for row in REGISTRY.values():
        if "random" not in row.tags:
            family = row.id.replace("hibou-b", "hibou").replace("hibou-l", "hibou").replace("midnight-12k", "midnight")
            assert (family in free) == row.share_merged, row.id


def test_formats() -> None:
    from stamp_deploy.config import DEFAULT_WRITERS
    from stamp_deploy.writers.formats import FORMATS

    page = DOCS / "writers.md"
    rows = table(page, "name")
    assert [names([cells[0]])[0] for cells in rows] == list(FORMATS)
    for (name, entry), cells in zip(FORMATS.items(), rows, strict=True):
        for file in entry.files.replace("[.gz]", "").split(", "):
            assert file in names([cells[1]]), name
    assert f"the default is `{','.join(DEFAULT_WRITERS)}`" in page.read_text()


def test_verbs() -> None:
    told = {name for cells in table(DOCS / "command-line.md", "verb") for name in names([cells[0]])}
    assert told == {name for group in SECTIONS.values() for name in group}


def test_exit_codes_of_a_batch() -> None:
    told = {int(cells[0]) for cells in table(DOCS / "batch.md", "exit code")}
    assert told == {int(code) for code in ExitCode} - {1, 7, 8}


def test_exit_codes_are_those_of_the_errors() -> None:
    told = {int(cells[0]) for cells in table(DOCS / "exit-codes.md", "code")}
    assert told == {int(code) for code in ExitCode} | {STOPPED}


def test_engines() -> None:
    from stamp_deploy.engine.registry import ENGINES
    from stamp_deploy.engine.tensorrt_plan import RTX_CAPABILITIES

    assert [names([cells[0]])[0] for cells in table(DOCS / "engine.md", "`--engine`")] == list(ENGINES)
    sentence = re.search(r"TensorRT-RTX\*\* runs on compute capability ([^;]+);", (DOCS / "engine.md").read_text())
    assert sentence is not None
    assert tuple(re.findall(r"\d+\.\d", sentence[1])) == RTX_CAPABILITIES


def test_speeds_by_processor_are_those_of_the_committed_run() -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "engine.json").read_text())
    speed = {name: found["tiles_per_second"] for name, found in record["speed"].items()}
    rows = table(DOCS / "engine.md", "instructions")
    (measured,) = [cells for cells in rows if "the committed run" in cells[1]]
    keys = ("onnxruntime_fp32", "openvino_fp32", "openvino_bf16", "onnxruntime_int8", "openvino_int8")
    for cell, key in zip(measured[2:], keys, strict=True):
        ratio = f"{speed[key] / speed['torch_fp32']:.2f}" if key in speed else "no such instructions"
        assert cell.startswith(ratio), (key, cell, ratio)
    for cells in rows:
        assert cells[1].strip() or set(cells[2:]) <= {"not measured", "no such instructions"}, cells


def test_keys_of_a_bundle() -> None:
    from stamp_deploy.bundle.schema import _REQUIRED, _SECOND

    text = (DOCS / "bundle.md").read_text()
    told = {name for cells in table(DOCS / "bundle.md", "key") for name in names([cells[0]])}
    wanted = {*_REQUIRED, *_SECOND} - {"schema_version"}
    assert wanted <= told | set(names([text.split("## bundle.json")[1]])), wanted - told


def test_keys_of_a_result(tmp_path: Path) -> None:
    from support.result_factory import make_result

    from stamp_deploy.writers import result_json

    result_json.write(make_result(n_tiles=12), tmp_path)
    record: dict[str, Any] = json.loads((tmp_path / "result.json").read_text())
    told = {name for cells in table(DOCS / "result.md", "key") for name in names([cells[0]])}
    assert set(record) - {"schema", "schema_version"} == told - {"schema", "schema_version"}


def test_arrays_of_a_result() -> None:
    from stamp_deploy.result import Result

    fields = {field.name for field in dataclasses.fields(Result)}
    for cells in table(DOCS / "result.md", "field"):
        assert re.split(r"[\[.]", names([cells[0]])[0])[0] in fields


def test_statuses_and_fields_of_tiles() -> None:
    from stamp_deploy.tiles.reader import TileBatch, TileStatus

    statuses = {cells[0] for cells in table(DOCS / "tiles.md", "status")}
    assert statuses == {status.name for status in TileStatus if status.name in statuses} and len(statuses) >= 4
    fields = {field.name for field in dataclasses.fields(TileBatch)}
    assert {names([cells[0]])[0] for cells in table(DOCS / "tiles.md", "field")} <= fields


def test_attributes_of_a_slide() -> None:
    from stamp_deploy.slide import Slide

    known = {*dir(Slide), *getattr(Slide, "__annotations__", {})}
    source = (ROOT / "stamp_deploy" / "slide" / "slide.py").read_text()
    for cells in table(DOCS / "slide.md", "attribute"):
        for name in names([cells[0]]):
            name = name.split("(")[0]
            assert name in known or f"self.{name}" in source, name


def test_figures_of_training_are_the_benchmarks() -> None:
    """her2st: each r in the table is the results' own, to three digits."""
    found = json.loads((ROOT / "benchmarks" / "results" / "training.json").read_text())
    rows = {cells[0]: cells[1] for cells in table(DOCS / "training.md", "features")}
    keys = {
        "29 stain and texture features": "floor_29_features",
        "sequencing depth of the tested spots (no picture)": "depth_only",
        "frozen": "frozen_ridge",
        "aligned: last stage": "last_stage",
        "frozen, with neighbours": "frozen_with_neighbours",
        "aligned: last stage, with neighbours": "aligned_with_neighbours",
        "frozen, the run's head": "frozen_head",
        "aligned: last stage, the run's head": "last_stage_head",
        "aligned: LoRA r8": "lora_r8",
        "aligned: LoRA r32": "lora_r32",
        "aligned: full fine-tuning (one seed)": "full_finetune",
        "control: last stage on random gene sets": "random_sets",
        "control: last stage on shuffled targets": "shuffled",
        "control: shuffled targets, the run's head": "shuffled_head",
    }
    assert set(rows) == set(keys)
    for label, key in keys.items():
        number = re.search(r"-?\.\d+", rows[label])
        assert number is not None and abs(float(number[0]) - found[key]) <= 0.00051, label
    readme = (ROOT / "README.md").read_text()
    for key in ("last_stage", "frozen_ridge", "floor_29_features"):
        assert f"{found[key]:.3f}"[1:] in readme, key


@pytest.mark.parametrize(
    ("page", "sentence", "verb", "option"),
    [("triton.md", "[--max-batch 64] [--instances 1] [--device gpu|cpu]", "triton", name)
     for name in ("--max-batch", "--instances", "--device")],
)  # fmt: skip
def test_defaults_in_a_synopsis(page: str, sentence: str, verb: str, option: str) -> None:
    from stamp_deploy.cli import cli

    assert sentence in (DOCS / page).read_text()
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    default = next(param.default for param in command.params if option in param.opts)
    assert re.search(rf"\[{option} {default}[\]|]", sentence)
