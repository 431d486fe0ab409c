"""Runs beside a run, each the same config with one thing changed: its controls, and the rows of the ablation table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from stamp_deploy.errors import UsageError

from .config import TrainConfig, load_config
from .evaluate.rows import CONTROLS, KINDS, RECIPES, RUNS
from .ingredients import check_ingredients
from .loop import fit
from .model import RunInfo, read_info

RECIPE_ROWS = "recipes"
"""Names all recipes at once among the rows asked for."""


def ablation_configs(config: TrainConfig) -> dict[str, TrainConfig]:
    """Settings of each row of the evaluation table that is a run, by the row's key; ``lora`` is the config itself."""
    return {kind.key: config.with_(**kind.settings) for kind in (*RUNS, *RECIPES)}


def train_ablations(
    config: TrainConfig,
    out: Path,
    rows: tuple[str, ...] = (),
    *,
    overwrite: bool = False,
    say: Callable[[str], object] = lambda text: None,
) -> Iterator[tuple[str, RunInfo]]:
    """Train each row into OUT/ROW; finished rows are kept, an unfinished one is gone on with.

    Without `rows`, all but the recipes are trained. Among `rows`, ``recipes`` stands for every recipe that the config's
    backbone and fields of view allow.

    A warm-up is done once, by the row ``frozen_head``, whose backbone the others start from.

    Raises
    ------
    UsageError
        A row that does not exist.
    """
    configs = ablation_configs(config)
    unknown = [row for row in rows if row not in configs and row != RECIPE_ROWS]
    if unknown:
        raise UsageError(f"there is no row {unknown[0]}", remedy=f"rows: {', '.join(configs)}; or {RECIPE_ROWS}")
    wanted = list(rows or (kind.key for kind in RUNS))
    if RECIPE_ROWS in wanted:
        place = wanted.index(RECIPE_ROWS)
        wanted[place : place + 1] = possible_recipes(configs, say)
    order = sorted(dict.fromkeys(wanted), key=lambda row: row != "frozen_head")
    if config.warm_up != "none" and order[0] != "frozen_head":
        order.insert(0, "frozen_head")
    for row in order:
        folder, settings = out / row, configs[row]
        if config.warm_up != "none" and row != "frozen_head":
            weights = str(out / "frozen_head" / "backbone.safetensors")
            settings = settings.with_(warm_up="none", weights=weights, weights_sha256="")
        if (folder / "run.json").exists() and not overwrite:
            say(f"{row:<16} there already")
            yield row, read_info(folder)
            continue
        yield row, fit(settings, folder, overwrite=overwrite)


def possible_recipes(configs: Mapping[str, TrainConfig], say: Callable[[str], object]) -> list[str]:
    """The recipes whose ingredients work with the config; of the others it is said why not."""
    found = []
    for kind in RECIPES:
        try:
            check_ingredients(configs[kind.key])
        except UsageError as error:
            say(f"{kind.key:<16} left out: {error}")
        else:
            found.append(kind.key)
    return found


def control_rows(config: TrainConfig) -> tuple[str, ...]:
    """The controls that a run can have: none for a frozen one or a control itself, no random sets for genes."""
    if not config.controls or config.control or config.adapt == "frozen" or config.epochs == 0:
        return ()
    return CONTROLS if config.targets == "pathways" else ("shuffled",)


def controls_left(config: TrainConfig, run: Path) -> tuple[str, ...]:
    """Controls that a finished run of the same settings still lacks; none where there is no such run."""
    if not (run / "run.json").is_file() or not (run / "config.toml").is_file():
        return ()
    if load_config(run / "config.toml").with_(controls=True) != config.with_(controls=True):
        return ()
    return tuple(row for row in control_rows(config) if not (run / "controls" / row / "run.json").is_file())


def train_controls(config: TrainConfig, run: Path, *, overwrite: bool = False) -> Iterator[tuple[str, RunInfo]]:
    """Train the controls of a finished run into RUN/controls/ROW; finished ones are kept.

    A warmed-up backbone is taken from the run where it still holds it (LoRA), and warmed up again elsewhere.
    """
    for row in control_rows(config):
        folder = run / "controls" / row
        if (folder / "run.json").is_file() and not overwrite:
            continue
        settings = config.with_(**KINDS[row].settings)
        if config.warm_up != "none" and config.adapt == "lora" and (run / "backbone.safetensors").is_file():
            weights = str(run / "backbone.safetensors")
            settings = settings.with_(warm_up="none", weights=weights, weights_sha256="")
        yield row, fit(settings, folder, overwrite=overwrite)
