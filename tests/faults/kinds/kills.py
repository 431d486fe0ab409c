"""A signal at a random moment: the output is there whole or not at all, and a second run does the work."""

from __future__ import annotations

import random
import signal
from pathlib import Path

from ..attempt import Attempt
from ..world import World, infer, new_slide
from .states import options

SHARE = 0.04
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def make(choose: random.Random, folder: Path, world: World) -> Attempt:
    number = choose.choice(SIGNALS)
    coding = choose.choice(list(world.slides))
    slide, out = new_slide(folder, "slide.svs", world.slides[coding]), folder / "out"
    codes = frozenset({0, 130, -number})  # -number: it came before the command had begun to listen
    if choose.random() < 0.25:
        what, moment = f"{number.name} to batch", choose.uniform(0.05, 6.0)
        return Attempt(what, options(world, slide, out), codes=codes | {75}, one_line=False, blow=(number, moment))
    return Attempt(
        f"{number.name} to infer",
        infer(slide, world.bundle, out, "--write", "json,hdf5,geojson,heatmaps"),
        slide.name,
        out,
        codes=codes,
        one_line=False,
        blow=(number, choose.uniform(0.0, 0.8)),
    )
