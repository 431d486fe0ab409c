"""What tests have several processes do: `python -m support.ranks_at_work TASK FOLDER`, by a launcher."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from stamp_deploy.errors import DataError
from stamp_deploy.training import loop, ranks, run_setup
from stamp_deploy.training.config import load_config
from stamp_deploy.training.ingredients import teacher
from stamp_deploy.training.model import build_model
from stamp_deploy.training.section_embeddings import embed_sections

MEETINGS, PATIENCE_S = 3, 200


def met(folder: Path) -> None:
    """Until another process says that it has met this one often enough since now."""
    (folder / "started").touch()
    until = time.monotonic() + PATIENCE_S
    while not (folder / "met").exists():
        if time.monotonic() > until:
            raise TimeoutError("no process met the one that works")
        time.sleep(0.02)


def tell_when_met(own: ranks.Ranks, folder: Path) -> None:
    """Say so, from beside."""

    def watch() -> None:
        while not (folder / "started").exists():
            time.sleep(0.02)
        before = own.beats
        while own.beats < before + MEETINGS:
            time.sleep(0.02)
        (folder / "met").touch()

    threading.Thread(target=watch, daemon=True).start()


def beats(folder: Path) -> None:
    """The first process works until it was met; the others are done at once."""
    own = ranks.Ranks(Accelerator())
    if own.rank == 1:
        tell_when_met(own, folder)

    def work() -> int:
        if own.main:
            met(folder)
        return own.rank

    (folder / f"made-{own.rank}").write_text(str(own.together(work)))


def failure(folder: Path) -> None:
    """The second process fails while the first one is at work for longer than the test has patience."""
    own = ranks.Ranks(Accelerator())

    def work() -> None:
        if not own.main:
            raise DataError("tiles are gone")
        time.sleep(PATIENCE_S * 10)

    try:
        own.together(work)
    except DataError as error:
        (folder / f"said-{own.rank}").write_text(error.cause)
        until = time.monotonic() + PATIENCE_S
        while len(list(folder.glob("said-*"))) < own.world and time.monotonic() < until:
            time.sleep(0.02)  # a launcher ends the others when the first one has gone
        raise


def training(folder: Path, module: Any, name: str) -> None:
    """A training whose long step, in the first process, ends only once it was met; its outcome's digest of each."""
    original: Callable[..., Any] = getattr(module, name)
    make, watched = ranks.Ranks.__init__, []

    def init(self: ranks.Ranks, accelerator: Accelerator) -> None:
        make(self, accelerator)
        if self.rank == 1 and not watched:
            watched.append(self)
            tell_when_met(self, folder)

    def held_up(*args: Any, **named: Any) -> Any:
        met(folder)
        return original(*args, **named)

    fit = loop._Trainer._train

    def train(self: Any, model: torch.nn.Module, *rest: Any) -> Any:
        parts = [*model.state_dict().values(), *(self.teacher.state_dict().values() if self.teacher else ())]
        found = hashlib.sha256(b"".join(p.detach().cpu().numpy().tobytes() for p in parts)).hexdigest()
        (folder / f"weights-{self.ranks.rank}").write_text(found)
        return fit(self, model, *rest)

    ranks.Ranks.__init__, loop._Trainer._train = init, train  # type: ignore[method-assign,assignment]
    setattr(module, name, held_up)
    loop.fit(load_config(folder / "run.toml"), folder / "run")


def bf16(folder: Path) -> None:
    """Embeddings in both precisions, by all processes."""
    own = ranks.Ranks(Accelerator())
    torch.cpu._is_avx512_bf16_supported = lambda: True
    start = run_setup.prepare(load_config(folder / "run.toml"))
    torch.manual_seed(0)
    model = build_model(start.info)
    kept = {}
    for precision in ("bf16", "fp32"):
        for i, found in enumerate(embed_sections(model, start.info, start.train, own, precision)):
            kept[f"{precision}-{i}"] = found
    np.savez(folder / f"embeddings-{own.rank}.npz", **kept)


if __name__ == "__main__":
    ranks.BEAT_S = 0.05
    task, place = sys.argv[1], Path(sys.argv[2])
    {
        "beats": lambda: beats(place),
        "failure": lambda: failure(place),
        "warm-up": lambda: training(place, run_setup, "warm_up"),
        "teacher": lambda: training(place, teacher, "pretrain"),
        "bf16": lambda: bf16(place),
    }[task]()
