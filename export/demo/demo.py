"""`stamp-deploy demo`: the whole product on data whose truth is known, in a few minutes on two cores.

    synthetic sections -> cohort build -> warm-up -> LoRA -> evaluate -> export -> infer on an unseen section

Every step is the one that real data takes. A second run keeps what a step has finished and infers again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from stamp_deploy import __version__
from stamp_deploy.atomic import write_json_atomic
from stamp_deploy.command import Command
from stamp_deploy.config import InferOptions
from stamp_deploy.export.demo import synthetic
from stamp_deploy.training.config import TrainConfig

if TYPE_CHECKING:
    from stamp_deploy.training.evaluate import Evaluation

    from .alignment import Gain
    from .picture import Match

TRAINING_SEEDS = (11, 12, 13, 14, 15, 16, 17, 18)
"""Sections that the model learns from, each of a patient of its own."""
VALIDATION_SEED = 21
"""The section that the best epoch is chosen on; the settings below were chosen on it and on 22."""
HELD_OUT_SEEDS = (31, 32, 33, 34)
"""Sections that no choice has seen: what is claimed is measured on them."""
PITCH_UM = 64.0
"""Centre to centre of the spots: no tissue between two tiles is left out."""
SLIDE_SEED = 99
SLIDE_SIZE = {"width": 6720, "height": 4800}
SECTION_SIZE = {"width": 4800, "height": 3840}
WRITERS = ("json", "hdf5", "parquet", "heatmaps", "report")
MODEL = {"pfm": "demo-vit", "score": "ucell", "head_final": "ridge", "precision": "fp32"}
"""Of both runs: the frozen model and the aligned one have the same read-out."""
START = {"adapt": "frozen", "warm_up": "vicreg", "warm_up_steps": 40, "epochs": 0}
"""In place of a foundation model: random weights, warmed up on the pixels of the training sections."""
ALIGNMENT = {
    "adapt": "lora",
    "lora_r": 16,
    "lora_alpha": 32.0,
    "lora_dropout": 0.0,
    "lora_target": r"patch_embed\.proj|blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])",
    "w_correlation": 1.0,
    "w_contrastive": 0.0,
    "w_anchor": 0.0,
    "batch_slides": 4,
    "batch_spots": 24,
    "lr": 2e-3,
    "epochs": 6,
    "patience": 0,
}
"""A small model from almost nothing may move far; a foundation model is held near what it was (docs/training.md)."""


@dataclass(frozen=True)
class Outcome:
    """What the demo found: maps against what was drawn, alignment against its start, and how far it moved."""

    matches: list[Match]
    gains: list[Gain]
    best_epoch: int
    cosine_to_frozen: float


def run_demo(out: Path, *, fresh: bool = False) -> Outcome:
    """Make, learn, evaluate, export, infer, compare, all below `out`; see the module's text."""
    from stamp_deploy.bundle import load_bundle
    from stamp_deploy.infer import infer_slide
    from stamp_deploy.training.cohort.build import build_cohort
    from stamp_deploy.training.loop import fit

    from ..export import export_run
    from .alignment import gains
    from .picture import Match, write_comparison

    _settle(out, fresh)
    raw, cohort, frozen, run, bundle = (out / name for name in ("sections", "cohort", "frozen", "run", "bundle"))
    slide = out / "slide.svs"
    section = synthetic.Section(SLIDE_SEED, **SLIDE_SIZE)
    shared = {
        **MODEL,
        "cohort": str(cohort),
        "gmt": str(raw / "programs.gmt"),
        "validation": [f"section-{VALIDATION_SEED}"],
        "held_out": [f"section-{seed}" for seed in HELD_OUT_SEEDS],
    }
    with _step("1/7 draw sections with expression, and the slide to be scored", slide.exists()) as todo:
        if todo:
            seeds = (*TRAINING_SEEDS, VALIDATION_SEED, *HELD_OUT_SEEDS)
            synthetic.write_cohort(raw, seeds, pitch_um=PITCH_UM, **SECTION_SIZE)
            synthetic.write_slide(out / "slide.partial.svs", section).rename(slide)
    with _step("2/7 build the cohort", (cohort / "cohort.json").exists()) as todo:
        if todo:
            build_cohort(raw / "cohort.toml", cohort)
    with _step("3/7 warm up a small vision transformer on their pixels", (frozen / "run.json").exists()) as todo:
        if todo:
            fit(TrainConfig.from_dict({**shared, **START}), frozen)
    with _step("4/7 align it with gene expression (LoRA)", (run / "run.json").exists()) as todo:
        if todo:
            weights = str(frozen / "backbone.safetensors")
            fit(TrainConfig.from_dict({**shared, **ALIGNMENT, "weights": weights}), run)
    with _step("5/7 evaluate both on held-out sections", False):
        evaluation = _evaluate(run, frozen)
    with _step("6/7 export a bundle, checked for parity", (bundle / "bundle.json").exists()) as todo:
        if todo:
            export_run(run, bundle, tiles=slide)
    with _step("7/7 score the slide", False):
        options = InferOptions(writers=WRITERS, overwrite=True)
        result = infer_slide(slide, load_bundle(bundle), out / "result", options)
    centres = result.coords + np.array([result.grid.span_x, result.grid.span_y]) / 2
    truth = section.programs(centres)
    matches = []
    for k, program in enumerate(synthetic.PROGRAMS):
        scores = result.pathways[:, result.pathway_names.index(program)]
        r = float(np.corrcoef(scores, truth[:, k])[0, 1])
        matches.append(Match(program, program in synthetic.VISIBLE, r, len(scores)))
    write_comparison(out / "comparison.png", result, truth, matches)
    metrics = json.loads((run / "run.json").read_text(encoding="utf-8"))["metrics"]
    outcome = Outcome(matches, gains(evaluation), metrics["best_epoch"], metrics["cosine_to_frozen"])
    write_json_atomic(out / "comparison.json", _record(outcome))
    return outcome


def _evaluate(run: Path, frozen: Path) -> Evaluation:
    from stamp_deploy.training.evaluate import EvaluateOptions, evaluate
    from stamp_deploy.training.evaluate.report import write_evaluation

    evaluation = evaluate(EvaluateOptions(run=run, compare=(("frozen", frozen),), tier1=False))
    write_evaluation(evaluation, run / "evaluation", overwrite=True, pictures=False)
    return evaluation


def _record(outcome: Outcome) -> dict[str, Any]:
    return {
        "slide": {m.program: {"visible": m.visible, "pearson_r": round(m.r, 4), "tiles": m.tiles}
                  for m in outcome.matches},
        "held_out": {g.program: {"visible": g.visible, "frozen": round(g.frozen, 4), "aligned": round(g.aligned, 4),
                                 "gain": round(g.difference.value, 4), "interval": asdict(g.difference.interval)}
                     for g in outcome.gains},
        "best_epoch": outcome.best_epoch,
        "cosine_to_frozen": outcome.cosine_to_frozen,
    }  # fmt: skip


def _settle(out: Path, fresh: bool) -> None:
    """Start over where the folder holds a demo of other settings or another release."""
    sections = [TRAINING_SEEDS, VALIDATION_SEED, HELD_OUT_SEEDS, PITCH_UM, SECTION_SIZE, SLIDE_SEED, SLIDE_SIZE]
    key = {"release": __version__, "training": [MODEL, START, ALIGNMENT], "sections": sections}
    digest = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    marker = out / "demo.json"
    if out.exists() and any(out.iterdir()) and not marker.exists():
        raise click.ClickException(f"{out} holds other things; name an empty folder with -o")
    if marker.exists() and (fresh or json.loads(marker.read_text(encoding="utf-8")).get("settings") != digest):
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    write_json_atomic(marker, {"settings": digest})


@contextmanager
def _step(title: str, done: bool) -> Iterator[bool]:
    """Say what is being done and how long it took; yields whether there is anything to do."""
    click.echo(f"{title} ... ", nl=False)
    clock = time.perf_counter()
    yield not done
    click.echo("there already" if done else f"{time.perf_counter() - clock:.1f} s")


@click.command(cls=Command, examples=("demo -o demo-out",))
@click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    help="Folder for all of it.",
)
@click.option("--fresh", is_flag=True, help="Start over instead of keeping what an earlier demo finished.")
def demo(out: Path, fresh: bool) -> None:
    """Draw a slide and a cohort, align a model, export, infer, and compare with the truth.

    Everything is synthetic, so that what a model should find is known. Takes some minutes on two cores.
    """
    from .alignment import table

    outcome = run_demo(out, fresh=fresh)
    matches = outcome.matches
    click.echo(
        f"\nWhat alignment added: Pearson r with the measured scores, mean of {len(HELD_OUT_SEEDS)} held-out sections"
    )
    for line in table(outcome.gains):
        click.echo(line)
    click.echo(f"  best epoch {outcome.best_epoch}, cosine to the frozen embedding {outcome.cosine_to_frozen:.4f}")
    click.echo(f"\nThe maps against the pattern that was drawn, over {matches[0].tiles} tiles of an unseen section:")
    for match in matches:
        note = "" if match.visible else "   (leaves no trace in the picture: near 0 is right)"
        click.echo(f"  {match.program:<14} Pearson r {match.r:+.2f}{note}")
    click.echo(f"\nresults    {out / 'result'}")
    click.echo(f"report     {out / 'result' / 'report.html'}")
    click.echo(f"overview   {out / 'result' / 'overview.png'}")
    click.echo(f"comparison {out / 'comparison.png'}")
    click.echo(f"bundle     {out / 'bundle'}")
    click.echo("\nYour own slide:")
    click.echo(f"  stamp-deploy infer SLIDE --bundle {out / 'bundle'} -o RESULT")
    click.echo("(this bundle knows synthetic patterns only; its scores of real tissue mean nothing)")
