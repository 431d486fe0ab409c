"""What a worker process does with a slide: prepare, score, write; and with a slide that is only looked at: probe."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import StampError
from ...hashing import folder_sha256
from .tasks import Task

if TYPE_CHECKING:
    from ...bundle import Bundle


class Steps(Protocol):
    """What the worker can do; tests bring steps that crash and hang."""

    def start(self, config: dict[str, Any]) -> None: ...
    def load(self) -> dict[str, Any]: ...
    def warm_up(self) -> None: ...
    def probe(self, slide: Path, mpp: float | None) -> dict[str, Any]: ...
    def series(self, path: Path) -> dict[str, Any]: ...
    def levels(self, path: Path) -> dict[str, Any]: ...
    def identity(self, path: Path) -> dict[str, Any]: ...
    def prepare(self, task: Task) -> Any: ...
    def ahead(self, prepared: Any) -> bool: ...
    def score(self, prepared: Any, progress: Callable[[int, int], None]) -> Any: ...
    def write(self, task: Task, scored: Any) -> dict[str, Any]: ...
    def discard(self, prepared: Any) -> None: ...


class InferSteps:
    """The real steps: those of infer.py."""

    bundle: Bundle | None = None

    def start(self, config: dict[str, Any]) -> None:
        """Load the bundle: what a slide needs to be prepared. Nothing where the worker is only to probe slides."""
        if config.get("bundle") is None:
            return
        from ... import infer  # noqa: F401  here, because two threads that import at once take longer than one after the other
        from ...bundle import load_bundle
        from ...config import InferOptions

        signature = config.get("require_signature")
        options = {**config["options"], "writers": tuple(config["options"]["writers"])}
        self.options = InferOptions(**options)
        self.bundle = load_bundle(
            Path(config["bundle"]),
            require_signature=Path(signature) if signature else None,
            adapter=self.options.adapter,
        )

    def load(self) -> dict[str, Any]:
        """Load the engine."""
        if self.bundle is None:
            return {}
        from ...infer import engine_for

        self.engine = engine_for(self.bundle, self.options)
        info = self.engine.info
        return {"engine": f"{info.name} {info.version} {info.precision} on {info.device}"}

    def warm_up(self) -> None:
        """Import what the first write would import, which takes longer than the write."""
        if self.bundle is None:
            return
        from ...writers import load_writer

        for name in self.options.writers:
            with contextlib.suppress(StampError):  # `prepare` says it, for each slide
                for package in load_writer(name).NEEDS:
                    with contextlib.suppress(ImportError):
                        import_module(package)

    def probe(self, slide: Path, mpp: float | None) -> dict[str, Any]:
        from ...slide import open_slide
        from ...slide.colour import KINDS

        with open_slide(slide, mpp=mpp, accept=KINDS) as opened:  # which of them the bundle takes, `prepare` knows
            return {
                "width": opened.width,
                "height": opened.height,
                "mpp_x": opened.mpp.mpp_x,
                "mpp_y": opened.mpp.mpp_y,
                "vendor": opened.vendor,
                "route": opened.route.name,
            }

    def series(self, path: Path) -> dict[str, Any]:
        from ..planning.dicom_series import read_series

        return {"series": read_series(path)}

    def levels(self, path: Path) -> dict[str, Any]:
        from ...slide.dicom import volume_instances

        return {"levels": sorted(instance.sop_uid for instance in volume_instances(path))}

    def identity(self, path: Path) -> dict[str, Any]:
        from ...slide.backends.openslide import OpenSlideBackend
        from ...slide.identity import slide_sha256

        return {"sha256": slide_sha256(path, OpenSlideBackend.detect(path) or "")}

    def prepare(self, task: Task) -> Any:
        from ...prepare import prepare
        from ...writers import check_names

        assert self.bundle is not None
        check_names(self.options.writers, task.slide)
        options = self.options if task.mpp is None else replace(self.options, mpp=task.mpp)
        return prepare(task.slide, self.bundle, options)

    def ahead(self, prepared: Any) -> bool:
        """Whether decoding leaves time for opening the next slide."""
        return bool(prepared.source.ahead)

    def score(self, prepared: Any, progress: Callable[[int, int], None]) -> Any:
        from ...score import score

        return prepared, score(prepared, self.engine, progress=progress)

    def write(self, task: Task, scored: Any) -> dict[str, Any]:
        from ...infer import conclude, write

        result = conclude(*scored)
        clock = time.perf_counter()
        result = write(result, task.out, self.options)
        return {
            "tiles": result.tiles.to_dict(),
            "timing": {**result.timing, "write": time.perf_counter() - clock},
            "limiting": result.limiting,
            "slide_sha256": result.slide.sha256,
            "result_sha256": folder_sha256(task.out),
            "warnings": list(result.warnings),
            "trust": None if result.trust is None else result.trust.verdict,
        }

    def discard(self, prepared: Any) -> None:
        prepared.close()
