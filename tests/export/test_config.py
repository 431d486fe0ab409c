"""Settings of an export: checked, explained, read from TOML, and published as a schema."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("pydantic")
from support.cli_runner import Runner, runner  # noqa: F401 - a fixture

from stamp_deploy.errors import UsageError
from stamp_deploy.export import adapters, export
from stamp_deploy.export.config import ExportConfig, check_alone, read_config
from stamp_deploy.export.schemas import schemas


@pytest.mark.parametrize(
    ("values", "cause", "remedy"),
    [
        ({"precison": "fp16"}, "unknown setting precison", "did you mean precision?"),
        ({"precision": "fp61"}, "precision = 'fp61' does not exist", "did you mean fp16?"),
        ({"precision": "fp8"}, "export in fp8 is not possible: ONNX Runtime has no fp8 kernels on the CPU to check it "
         "with", "use --precision fp32, fp16, bf16 or int8"),
        ({"also": ["int4"]}, "a bundle cannot also carry int4", "use --also int8"),
        ({"also": ["int8"], "precision": "int8"}, "the bundle is int8 already",
         "leave --also out, or use --precision fp32"),
        ({"also_by_default": "yes"}, "also_by_default = 'yes' is of the wrong type: not a bool", "such as False"),
        ({"adapters": [1]}, "adapters holds 1, which is of the wrong type", "write texts in quotes"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_a_remedy(values: dict[str, Any], cause: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        ExportConfig.checked(values)
    assert (caught.value.cause, caught.value.remedy) == (cause, remedy)


def test_every_setting_has_a_reason_and_the_published_schema_is_that_of_the_code() -> None:
    for name, schema in schemas().items():
        published = json.loads((Path(__file__).parents[2] / "docs" / "schema" / name).read_text(encoding="utf-8"))
        assert published == json.loads(json.dumps(schema)), "python -m stamp_deploy.export.schemas docs/schema"
        assert all(setting["description"] for setting in schema["properties"].values())
        assert schema["properties"]["precision"]["enum"] == ["fp32", "fp16", "bf16", "int8"]
        assert schema["additionalProperties"] is False


def test_options_outrank_the_file_whose_paths_are_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings" / "tissue").mkdir(parents=True)
    path = tmp_path / "settings" / "export.toml"
    path.write_text('precision = "fp16"\nalso = "int8"\nname = "ours"\ntiles = "tissue"\ntriton = "served"\n')
    monkeypatch.chdir(tmp_path)
    found = read_config(path, {"precision": None, "also": (), "also_by_default": False, "name": "theirs"})
    assert (found.precision, found.also, found.name) == ("fp16", ("int8",), "theirs")
    assert found.tiles == str(path.parent / "tissue") and found.triton == str(path.parent / "served")
    assert read_config(path, {"precision": "bf16"}).precision == "bf16"
    assert read_config(None, {"precision": None}) == ExportConfig()


@pytest.mark.parametrize(
    ("text", "cause"),
    [('heads = "nowhere"', "heads names what does not exist"), ("precison = 1", "unknown setting precison"),
     ("precision =", "cannot be read as TOML")],
)  # fmt: skip
def test_a_bad_file_is_told(tmp_path: Path, text: str, cause: str) -> None:
    (tmp_path / "export.toml").write_text(text + "\n")
    with pytest.raises(UsageError, match=cause) as caught:
        read_config(tmp_path / "export.toml", {})
    assert caught.value.path in (tmp_path / "export.toml", tmp_path / "nowhere")


@pytest.mark.parametrize(
    "values", [{"precision": "fp16"}, {"also": ("int8",)}, {"heads": "h"}, {"evaluation": "e"}, {"triton": "t"}]
)
def test_several_adapters_take_few_settings(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="several adapters in one bundle take only"):
        check_alone(ExportConfig.checked(values))
    check_alone(ExportConfig.checked({"tiles": "t", "name": "n", "adapters": ("a", "b")}))


def test_the_command_hands_the_settings_on(
    tmp_path: Path,
    runner: Runner,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []
    made = SimpleNamespace(lacks=(), sha256="0" * 64)
    monkeypatch.setattr(export, "export_run", lambda run, out, **given: asked.append(given) or made)
    monkeypatch.setattr(export, "describe", lambda bundle: "described")
    monkeypatch.setattr(adapters, "export_adapters", lambda runs, out, **given: asked.append(given) or {})
    (tmp_path / "run").mkdir()
    file = tmp_path / "export.toml"
    file.write_text('precision = "fp16"\nalso_by_default = true\n')
    common = ("export", tmp_path / "run", "-o", tmp_path / "bundle", "--config", file)
    assert runner(*common, "--also", "int8", "--overwrite").code == 0
    wanted = {"precision": "fp16", "also": ("int8",), "also_by_default": True, "overwrite": True, "tiles": None,
              "heads": None, "evaluation": None, "name": None}  # fmt: skip
    assert asked.pop() == wanted
    refused = runner(*common, "--adapters", "lung,breast")
    assert refused.code == 2 and "several adapters" in refused.err and not asked
    (tmp_path / "bundle").mkdir()
    file.write_text('adapters = ["lung", "breast"]\nname = "ours"\n')
    assert runner(*common).code == 0
    assert asked.pop() == {"names": ("lung", "breast"), "tiles": None, "name": "ours", "overwrite": False}
