"""Is this machine fit to run? Versions, libraries, engines, GPU, and a self-test decode."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..system.offline import BLOCKED, SWITCHES, newer_than_known, spoke_before
from ..system.processor import this_processor, usable_cores

GPU_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")


@dataclass(frozen=True)
class Check:
    """One line of the report: status is "ok", "warn" or "fail"."""

    name: str
    status: str
    detail: str


@dataclass(frozen=True)
class Report:
    """All checks; `ok` when none failed."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.status != "fail" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def to_text(self) -> str:
        """The report as aligned lines."""
        width = max(len(check.name) for check in self.checks)
        lines = [f"{check.status:<5} {check.name:<{width}}  {check.detail}" for check in self.checks]
        lines.append("this machine is ready" if self.ok else "this machine is not ready: see the lines that say fail")
        return "\n".join(lines)


def run_checks() -> Report:
    """Run every check; a check that raises fails with the error's text, and the others still run."""
    checks: list[tuple[str, Callable[[], tuple[str, str]]]] = [
        ("stamp-deploy", lambda: ("ok", f"{__version__}, Python {platform.python_version()}, {platform.machine()}")),
        ("cpu", _cpu),
        ("openslide", _openslide),
        ("libvips", _vips),
        ("compiled tiler", _tiler),
        ("silence", _silence),
        ("onnxruntime", _onnxruntime),
        ("openvino", _openvino),
        ("gpu", _gpu),
        ("self-test", _self_test),
    ]
    return Report(tuple(_run(name, check) for name, check in checks))


def _run(name: str, check: Callable[[], tuple[str, str]]) -> Check:
    try:
        return Check(name, *check())
    except Exception as error:
        return Check(name, "fail", f"{type(error).__name__}: {' '.join(str(error).split())}")


def _cpu() -> tuple[str, str]:
    """Cores that this process may use, the processor's name, memory; what a CPU engine will run on."""
    cores = usable_cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    processor = this_processor()
    wide = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_tile") if flag in processor.flags]
    sets = ", ".join(wide) or "no AVX2"
    return "ok" if cores > 1 else "warn", f"{cores} cores, {memory:.0f} GB, {processor.name} ({sets})"


def _openslide() -> tuple[str, str]:
    import openslide

    return "ok", f"{openslide.__library_version__} (openslide-python {openslide.__version__})"


def _vips() -> tuple[str, str]:
    import openslide  # noqa: F401 - must be loaded before pyvips
    import pyvips

    version = ".".join(str(pyvips.version(i)) for i in range(3))
    return ("ok" if pyvips.at_least_libvips(8, 16) else "warn"), f"{version} (pyvips {pyvips.__version__})"


def _tiler() -> tuple[str, str]:
    from .._tiler import build_info

    return "ok", build_info()


def _silence() -> tuple[str, str]:
    """Whether the libraries that would report to their makers are switched off, and of versions that heed it."""
    if early := spoke_before():
        return "fail", f"{' and '.join(early)} came before stamp_deploy and may have reported to its maker"
    heeded = {name: os.environ.get(name) == value for name, value in SWITCHES.items()}
    heeded |= {package: sys.modules.get(package, "absent") is None for package in BLOCKED}
    if undone := [name for name, holds in heeded.items() if not holds]:
        return "fail", f"switched on again in this process: {', '.join(undone)}"
    if unknown := newer_than_known():
        return "warn", f"reports to makers are off, but {', '.join(unknown)} was not looked at: see docs/security.md"
    return "ok", "reports to makers are off: ONNX Runtime, OpenVINO, Ray, huggingface_hub"


def _onnxruntime() -> tuple[str, str]:
    import onnxruntime

    return "ok", f"{onnxruntime.__version__}: {', '.join(onnxruntime.get_available_providers())}"


def _openvino() -> tuple[str, str]:
    try:
        import openvino
    except ImportError:
        return "warn", "not installed; the fast CPU engine comes with: pip install 'stamp-deploy[openvino]'"
    return "ok", str(openvino.__version__)


def _gpu() -> tuple[str, str]:
    if shutil.which(GPU_QUERY[0]) is None:
        return "warn", "no NVIDIA driver found: engines run on the CPU"
    done = subprocess.run(GPU_QUERY, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        return "warn", f"nvidia-smi failed: {done.stderr.strip() or done.stdout.strip()}"
    return "ok", "; ".join(line.strip() for line in done.stdout.splitlines() if line.strip())


def _self_test() -> tuple[str, str]:
    """Write a small tiled JPEG TIFF, read it by its route, compare with what was written."""
    import openslide  # noqa: F401 - must be loaded before pyvips
    import pyvips

    from ..grid import make_grid, select_tiles
    from ..slide import open_slide
    from ..tiles import TileStatus, open_tiles

    ramp = np.linspace(60, 220, 512, dtype=np.float32)
    rgb = np.stack(np.broadcast_arrays(ramp[None, :], ramp[:, None], np.float32(128.0)), -1).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "self-test.tif")
        image = pyvips.Image.new_from_array(rgb)
        image.tiffsave(str(path), tile=True, tile_width=256, tile_height=256, compression="jpeg", Q=95)
        with open_slide(path, mpp=0.5) as slide:
            tiles = select_tiles(make_grid(slide, target_mpp=0.5, tile_px=256), None, 0.0)
            with open_tiles(slide, tiles, batch=4) as source:
                worst, seen = 0, 0
                for batch in source:
                    for pixels, (x, y), status in zip(batch.pixels, batch.coords, batch.status, strict=True):
                        if status != TileStatus.OK:
                            return "fail", f"a tile came back as {TileStatus(status).name}"
                        want = rgb[y : y + 256, x : x + 256].astype(int)
                        worst = max(worst, int(np.abs(pixels.astype(int) - want).max()))
                        seen += 1
    if seen != 4 or worst > 12:
        return "fail", f"{seen} of 4 tiles came back, off by up to {worst} of 255"
    return "ok", f"{seen} tiles decoded by the {slide.route.name} route, within {worst} of 255"
