"""Every setting of an export, its default and the reason for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from stamp_deploy.errors import UsageError
from stamp_deploy.training.toml_settings import Texts, TomlSettings, read_toml, setting

FILES = ("tiles", "heads", "evaluation")
"""Settings that name files or folders which must be there."""
PLACES = (*FILES, "triton")
ALONE = ("precision", "also", "also_by_default", "heads", "evaluation", "triton")
"""Settings of a bundle that holds one model; several adapters take none of them."""


class ExportConfig(TomlSettings):
    """How a run becomes a bundle. Paths are relative to the file's folder; empty texts and lists mean "not set"."""

    precision: Literal["fp32", "fp16", "bf16", "int8"] = setting(
        "fp32", "of the encoder that every engine can load; a lower one must pass parity"
    )
    also: Texts = setting((), "int8 beside it, for the engines that run it faster")
    also_by_default: bool = setting(False, "let `infer` use what `also` adds without being asked")
    tiles: str = setting("", "tissue tiles for parity: .npy, slide, folder of images; empty: the run's cohort")
    heads: str = setting("", "folder that train-head wrote; empty: the run's own")
    evaluation: str = setting("", "folder that evaluate wrote; empty: the run's own")
    adapters: Texts = setting((), "names, where several runs become one bundle; empty: those of the runs' folders")
    triton: str = setting("", "write a Triton model repository there, too")
    name: str = setting("", "of the bundle; empty: the output folder's")

    @classmethod
    def checked(cls, values: Mapping[str, Any], source: Path | None = None, *, owner: str = "") -> Self:
        """The settings in `values`, which must also agree with each other; see `TomlSettings.checked`."""
        made = super().checked(values, source, owner=owner)
        if odd := sorted({*made.also} - {"int8"}):
            raise UsageError(f"a bundle cannot also carry {odd[0]}", path=source, remedy="use --also int8")
        if made.precision in made.also:
            raise UsageError(
                "the bundle is int8 already", path=source, remedy="leave --also out, or use --precision fp32"
            )
        return made

    @classmethod
    def _explain(cls, error: Mapping[str, Any]) -> tuple[str, str]:
        if error["loc"][0] == "precision" and error["input"] == "fp8":
            cause = "export in fp8 is not possible: ONNX Runtime has no fp8 kernels on the CPU to check it with"
            return cause, "use --precision fp32, fp16, bf16 or int8"
        return super()._explain(error)


def read_config(path: Path | None, given: Mapping[str, Any]) -> ExportConfig:
    """The settings of a TOML file, where there is one; what was given on the command line outranks it.

    Raises
    ------
    UsageError
        The file cannot be read, a setting is unknown or impossible, or a file that it names is not there.
    """
    stated = {} if path is None else read_toml(path, "name a TOML file of settings")
    if path is not None:
        checked = ExportConfig.checked(stated, path)  # an error of the file names the file
        places = {key: str(path.parent / value) for key in PLACES if (value := getattr(checked, key))}
        stated = stated | places
    config = ExportConfig.checked(stated | {key: value for key, value in given.items() if value}, path)
    for key in FILES:
        if (value := getattr(config, key)) and not Path(value).exists():
            raise UsageError(f"{key} names what does not exist", path=Path(value), remedy="correct its path")
    return config


def check_alone(config: ExportConfig) -> None:
    """Refuse what a bundle of several adapters does not take.

    Raises
    ------
    UsageError
        A setting of `ALONE` is not its default.
    """
    default = ExportConfig()
    if any(getattr(config, key) != getattr(default, key) for key in ALONE):
        raise UsageError(
            "several adapters in one bundle take only --adapters, --tiles, --name and --overwrite",
            remedy="leave the other options out; each run brings its own heads and evaluation",
        )
