"""`fit`: one training run, from a config to a run folder. Killed at any point, the same command goes on from there."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stamp_deploy.atomic import disk_errors, write_text_atomic
from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.system.memory import keep_memory

from .autocast import autocast, use_bf16
from .config import TrainConfig
from .data import Batch, Batches, Loader
from .finished_run import clear_run, metrics_of, write_run
from .ingredients.gene_transformer import GeneTransformer
from .ingredients.teacher import cohort_teacher, guide
from .model import RunInfo, StampModel, read_info
from .model.checkpoint import Checkpoint
from .model.ridge_heads import set_ridge_head, set_ridge_heads
from .objective import TERMS, Alignment, learning_parameters
from .position import Position
from .progress import Events, Report, write_csv
from .ranks import Ranks
from .run_setup import Start, batch_numbers, first_model, prepare
from .schedule import rate_factor
from .section_embeddings import embed_sections
from .sections import TrainSection
from .torch_threads import set_torch_threads
from .validation import validation_r
from .view_cache import ViewLoader, Views, embed_views, keep_views

GPU_LOADER_THREADS = 4
"""Batches prepared side by side where a GPU waits for them: 6,000 tiles of 224 px per second."""


def fit(config: TrainConfig, out: Path | str, *, overwrite: bool = False) -> RunInfo:
    """Train, and write the run folder: run.json (last), config.toml, metrics.csv, backbone, adapter and heads.

    The folder's `checkpoint/` lives while the run does; calling `fit` again with the same settings goes on from it,
    and ends with the same weights as a run that was never stopped (bit for bit on the CPU with as many threads).

    Raises
    ------
    UsageError
        A setting that cannot be used; the folder holds a finished run, or an unfinished one of other settings.
    DataError
        Data that would teach something false; or the loss became NaN.
    DiskError
        The disk is full.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UsageError("the output exists and is not a folder", path=out, remedy="name another output with -o")
    if (out / "run.json").exists() and not overwrite:
        raise UsageError("the folder holds a finished run", path=out, remedy="name another, or add --overwrite")
    keep_memory()
    set_torch_threads(config.threads)
    start = prepare(config)
    with disk_errors(out):
        if overwrite and out.exists():
            clear_run(out)
        out.mkdir(parents=True, exist_ok=True)
        return _Trainer(config, start, out).run()


class _Trainer:
    """The state of one call of `fit`."""

    def __init__(self, config: TrainConfig, start: Start, out: Path) -> None:
        from accelerate import Accelerator

        self.config, self.start, self.out = config, start, out
        self.accelerator = Accelerator(mixed_precision="no")  # autocast is this module's own
        self.device = self.accelerator.device
        self.ranks = Ranks(self.accelerator)
        self.main = self.ranks.main
        self.report = Report(config.progress and self.main)
        self.events = Events(out / "tensorboard", enabled=self.main)
        self.checkpoint = Checkpoint(out / "checkpoint", start.key, config.checkpoint_minutes, enabled=self.main)
        self.views: list[list[Views]] = []
        self.teacher: GeneTransformer | None = None
        self.seconds = 0.0

    def run(self) -> RunInfo:
        if self.main:
            write_text_atomic(self.out / "config.toml", self.config.to_toml())
        model, warm_up = self.ranks.main_first(
            lambda: first_model(self.config, self.start, self.checkpoint, self.report, self.device)
        )
        model.keep_start()
        if self.config.cache_views:
            self.views = self._keep_views(model)
        if self.config.w_teacher > 0:
            self.report.start("teacher", 1)
            self.teacher = self.ranks.main_first(
                lambda: cohort_teacher(self.start.train, self.config, self.checkpoint, self.device)
            )
            self.report.stop()
        embeddings = self._embed(model, self.start.train)
        set_ridge_heads(model, embeddings, self.start.train, pathway=self.config.head_init == "ridge")
        position, step = self._train(model, embeddings)
        learned = self._embed(step.model, self.start.train)
        self.ranks.together(lambda: self._finish(step, position, embeddings, learned, warm_up) if self.main else None)
        return read_info(self.out)  # what the first process wrote, for all of them

    def _keep_views(self, model: StampModel) -> list[list[Views]]:
        """What the first block that learns gets of each view."""
        folder = Path(self.config.cache_dir) if self.config.cache_dir else self.checkpoint.folder / "views"
        self.report.start("views", len(self.start.train) * model.fields_count)
        found = keep_views(
            model, self.start.info, self.start.train, self.config, folder, self.report.advance, ranks=self.ranks
        )
        self.report.stop()
        return found

    def _train(self, model: StampModel, embeddings: list[NDArray[np.float32]]) -> tuple[Position, Alignment]:
        config = self.config
        genes = self.start.train[0].genes.shape[1]
        torch.manual_seed(config.seed + 1)
        step = Alignment(model, config, genes=genes, batches=batch_numbers(config, self.start.train)).to(self.device)
        if self.teacher is not None:
            guide(step.ingredients, self.teacher, self.start.train)
        width = model.dim // model.fields_count
        for i, head in enumerate(step.field_heads):
            if config.head_init == "ridge":
                part = [e[:, i * width : (i + 1) * width] for e in embeddings]
                set_ridge_head(head, part, self.start.train)  # type: ignore[arg-type]
        backbone, heads = learning_parameters(step)
        rates = ((backbone, config.lr), (heads, config.lr_heads))
        groups = [{"params": p, "lr": lr, "top": lr} for p, lr in rates if p]
        optimiser: torch.optim.Optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        saved = self.checkpoint.load("training", step, optimiser)
        position = Position(**saved) if saved else Position()
        loader = self._loader()
        batches = loader.batches_per_epoch()
        steps_per_epoch = math.ceil(batches / config.accumulation)
        total = steps_per_epoch * config.epochs
        wrapped = self.ranks.wrap(step)
        if not saved and config.epochs:
            self._validate(step, position)
        self.report.start("training", total, position.step)
        while position.epoch < config.epochs and not self._patience_over(position):
            clock = time.perf_counter()
            wrapped.train()
            for batch in self._batches(loader, position):
                last = position.batch + 1 == batches
                update = last or (position.batch + 1) % config.accumulation == 0
                self._backward(wrapped, batch, position, update)
                position.batch += 1
                if update:
                    self._update(step, optimiser, [*backbone, *heads], position, total)
                    self.report.advance(position.note())
                    if not last:
                        self._save_if_due(step, optimiser, position)
            position.epoch, position.batch = position.epoch + 1, 0
            self.seconds += time.perf_counter() - clock
            self._close_epoch(step, position, time.perf_counter() - clock)
            self._save_if_due(step, optimiser, position)
        self.report.stop()
        self.events.close()
        if position.best_r is not None and self.start.validation:
            self.checkpoint.load("best", step, torch.optim.SGD(step.parameters(), lr=0.0))
        return position, step

    def _loader(self) -> Batches:
        info, a = self.start.info, self.accelerator
        if self.views:
            return ViewLoader(self.start.train, self.views, self.config, rank=a.process_index, world=a.num_processes)
        return Loader(
            self.start.train, self.config, info.tile_px, info.mean, info.std, info.mpp,
            rank=a.process_index, world=a.num_processes, pinned=self.device.type == "cuda",
            threads=self.config.loader_threads or (GPU_LOADER_THREADS if self.device.type == "cuda" else 1),
        )  # fmt: skip

    def _batches(self, loader: Batches, position: Position) -> Iterator[Batch]:
        for batch in loader.epoch(position.epoch, position.batch):
            yield batch.to(self.device)

    def _backward(self, wrapped: nn.Module, batch: Batch, position: Position, update: bool) -> None:
        several = self.accelerator.num_processes > 1
        hold: AbstractContextManager[Any] = wrapped.no_sync() if several and not update else nullcontext()  # type: ignore[operator]
        with hold:
            with autocast(self.device, self.config.precision):
                loss, terms = wrapped(*batch.fields())
            if not torch.isfinite(loss):
                raise DataError(
                    f"the loss became {float(loss.detach())} in epoch {position.epoch + 1}",
                    path=self.out,
                    remedy='lower lr, or set precision = "fp32"',
                )
            (loss / self.config.accumulation).backward()
        sums = position.sums
        for name, value in {"loss": loss.detach(), **terms}.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        sums["batches"] = sums.get("batches", 0.0) + 1
        sums["tiles"] = sums.get("tiles", 0.0) + len(batch.tiles)

    def _update(
        self,
        step: Alignment,
        optimiser: torch.optim.Optimizer,
        parameters: list[nn.Parameter],
        position: Position,
        total: int,
    ) -> None:
        factor = rate_factor(position.step, total, self.config.warmup_fraction)
        for group in optimiser.param_groups:
            group["lr"] = group["top"] * factor
        nn.utils.clip_grad_norm_(parameters, self.config.clip)
        optimiser.step()
        optimiser.zero_grad()
        step.after_update()
        position.step += 1

    def _save_if_due(self, step: Alignment, optimiser: torch.optim.Optimizer, position: Position) -> None:
        """A checkpoint now and then: the first process says when, and writes it while the others wait."""
        if self.ranks.decide(float(self.checkpoint.due())):
            self.ranks.together(lambda: self.checkpoint.save("training", step, optimiser, position.to_dict()))

    def _close_epoch(self, step: Alignment, position: Position, seconds: float) -> None:
        sums, position.sums = position.sums, {}
        count = sums.get("batches", 1.0)
        row: dict[str, Any] = {"epoch": position.epoch, "step": position.step, "loss": sums.get("loss", 0.0) / count}
        row |= {name: sums[name] / count for name in TERMS if name in sums}
        position.history.append(row)
        self._validate(step, position)
        if self.main:
            self._write_metrics(position, {"tiles_per_s": sums.get("tiles", 0.0) / max(seconds, 1e-9)})

    def _validate(self, step: Alignment, position: Position) -> None:
        """Score the validation sections; keep the model where it is the best so far."""
        if not self.start.validation:
            return
        untrained = self.config.w_regression == 0 and self.config.w_correlation == 0
        if untrained or self.config.field_steps == "one":  # nothing trains the head
            set_ridge_heads(step.model, self._embed(step.model, self.start.train), self.start.train)
        found = self._embed_tiles(step.model, self.start.validation)
        value = validation_r(step.model, self.start.info, self.start.validation, found)
        value = self.ranks.decide(value)  # the stop is decided once
        if position.history:
            position.history[-1]["validation_r"] = value
        if position.best_r is None or value > position.best_r:
            position.best_r, position.best_epoch, position.bad_epochs = value, position.epoch, 0
            nothing = torch.optim.SGD(step.parameters(), lr=0.0)
            self.ranks.together(lambda: self.checkpoint.save("best", step, nothing, {"epoch": position.epoch}))
        else:
            position.bad_epochs += 1

    def _write_metrics(self, position: Position, last: dict[str, float]) -> None:
        position.history[-1] |= last
        write_csv(self.out / "metrics.csv", position.history)
        self.events.add(position.history[-1])

    def _patience_over(self, position: Position) -> bool:
        return bool(self.start.validation) and 0 < self.config.patience <= position.bad_epochs

    def _embed(self, model: StampModel, sections: list[TrainSection]) -> list[NDArray[np.float32]]:
        """Embeddings of the training sections, by way of the kept views where there are some."""
        if self.views:
            sizes = [len(s.target) for s in sections]
            return self.ranks.share(sizes, model.dim, lambda i: embed_views(model, self.views[i]))
        return self._embed_tiles(model, sections)

    def _embed_tiles(self, model: StampModel, sections: list[TrainSection]) -> list[NDArray[np.float32]]:
        """Embeddings of sections, shared out over the processes; on a GPU in the precision of the training."""
        precision = self.config.precision if self.device.type == "cuda" else "fp32"
        return embed_sections(model, self.start.info, sections, self.ranks, precision)

    def _finish(
        self,
        step: Alignment,
        position: Position,
        frozen: list[NDArray[np.float32]],
        embeddings: list[NDArray[np.float32]],
        warm_up: list[dict[str, Any]],
    ) -> None:
        set_ridge_heads(step.model, embeddings, self.start.train, pathway=self.config.refits_head)
        metrics = metrics_of(step.model, self.config, self.start, position, frozen, embeddings)
        metrics |= {
            "seconds": round(self.seconds, 1),
            "precision": "bf16" if use_bf16(self.device, self.config.precision) else "fp32",
            "device": self.device.type,
        }
        if warm_up:
            metrics["warm_up"] = warm_up[-1]
        write_run(self.out, step, self.config, self.start, metrics)
