"""`stamp-deploy demo`: the whole product on data whose truth is known, in a few minutes on two cores.

    synthetic sections -> cohort build -> train (LoRA) -> export -> infer on an unseen section -> compare

Every step is the one that real data takes. A second run keeps what a step has finished and infers again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from stamp_deploy import __version__
from stamp_deploy.atomic import write_json_atomic
from stamp_deploy.command import Command
from stamp_deploy.config import InferOptions
from stamp_deploy.export.demo import synthetic
from stamp_deploy.training.config import TrainConfig

if TYPE_CHECKING:
    from .picture import Match

COHORT_SEEDS = (11, 12, 13, 14, 15)
"""Sections of five patients; the last one stops the training."""
SLIDE_SEED = 99
SLIDE_SIZE = {"width": 6720, "height": 4800}
WRITERS = ("json", "hdf5", "parquet", "heatmaps", "report")
TRAINING = {
    "pfm": "demo-vit",
    "score": "ucell",
    "validation": [f"section-{COHORT_SEEDS[-1]}"],
    "warm_up": "vicreg",
    "warm_up_steps": 200,
    "epochs": 12,
    "lr": 2e-3,
    "lr_heads": 1e-3,
    "precision": "fp32",
}


def run_demo(out: Path, *, fresh: bool = False) -> list[Match]:
    """Make, learn, export, infer, compare, all below `out`; see the module's text."""
    from stamp_deploy.bundle import load_bundle
    from stamp_deploy.infer import infer_slide
    from stamp_deploy.training.cohort.build import build_cohort
    from stamp_deploy.training.loop import fit

    from ..export import export_run
    from .picture import Match, write_comparison

    _settle(out, fresh)
    raw, cohort, run, bundle = out / "sections", out / "cohort", out / "run", out / "bundle"
    slide = out / "slide.svs"
    section = synthetic.Section(SLIDE_SEED, **SLIDE_SIZE)
    with _step("1/5 draw five sections with expression, and the slide to be scored", slide.exists()) as todo:
        if todo:
            synthetic.write_cohort(raw, COHORT_SEEDS)
            synthetic.write_slide(out / "slide.partial.svs", section).rename(slide)
    with _step("2/5 build the cohort", (cohort / "cohort.json").exists()) as todo:
        if todo:
            build_cohort(raw / "cohort.toml", cohort)
    with _step("3/5 fine-tune a small vision transformer with LoRA", (run / "run.json").exists()) as todo:
        if todo:
            config = {**TRAINING, "cohort": str(cohort), "gmt": str(raw / "programs.gmt")}
            fit(TrainConfig.from_dict(config), run)
    with _step("4/5 export a bundle, checked for parity", (bundle / "bundle.json").exists()) as todo:
        if todo:
            export_run(run, bundle, tiles=slide)
    with _step("5/5 score the slide", False):
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
    rows = {m.program: {"visible": m.visible, "pearson_r": round(m.r, 4), "tiles": m.tiles} for m in matches}
    write_json_atomic(out / "comparison.json", rows)
    return matches


def _settle(out: Path, fresh: bool) -> None:
    """Start over where the folder holds a demo of other settings or another release."""
    key = {"release": __version__, "training": TRAINING, "cohort": COHORT_SEEDS, "slide": [SLIDE_SEED, SLIDE_SIZE]}
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
    """Draw a slide and a cohort, train, export, infer, and compare with the truth.

    Everything is synthetic, so that what a model should find is known. Takes some minutes on two cores.
    """
    matches = run_demo(out, fresh=fresh)
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
