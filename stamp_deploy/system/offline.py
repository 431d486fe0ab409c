"""Nothing is reported to anybody: libraries that would report to their makers are switched off before their import.

``import stamp_deploy`` calls `silence`, so every way in passes here: the command, the workers of a batch, Ray's actors,
the API, a notebook. What the libraries do without it, as seen with ``strace`` (tests/test_no_network.py repeats it):

- ONNX Runtime 1.32 writes a device id and a queue of events below ~/.cache/Microsoft and sends them to its maker. The
  variable counts when the library is loaded; its own ``disable_telemetry_events()`` comes too late.
- OpenVINO sends an event to a web-analytics host whenever it is imported. It goes without its package for that.
- Ray reports the use of a cluster that is started here; huggingface_hub tells its server what asks.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings

from .user_cache import user_cache

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""Environment variables and what they are set to, whatever they were: child processes have them too."""

BLOCKED = ("openvino_telemetry",)
"""Packages that cannot be imported afterwards; those that try go on without them."""

KNOWN = {"onnxruntime": (1, 32), "openvino": (2026, 4)}
"""Newest versions that were seen to stay silent. pyproject.toml allows no newer one, and `doctor` warns of it."""

_DISTRIBUTIONS = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "openvino": ("openvino",)}
"""Names under which a library of `KNOWN` is installed."""

_LATE: list[str] = []


def silence() -> None:
    """Switch the reports off; warns where a library was imported before, and may have reported already."""
    if "onnxruntime" in sys.modules and os.environ.get("ORT_DISABLE_TELEMETRY") != "1":
        _too_late("onnxruntime", "or set ORT_DISABLE_TELEMETRY=1 in the environment")
    for package in BLOCKED:
        if sys.modules.get(package) is not None:
            _too_late(package, "or uninstall it: nothing here needs it")
        sys.modules[package] = None  # type: ignore[assignment]  # importlib's way to say "not to be had"
    os.environ.update(SWITCHES)


def spoke_before() -> tuple[str, ...]:
    """Libraries of this process that were imported before they could be switched off."""
    return tuple(_LATE)


def newer_than_known() -> list[str]:
    """Installed libraries, with their versions, that are newer than those of `KNOWN`."""
    from importlib.metadata import PackageNotFoundError, version  # takes longer than all the rest of this module

    newer = []
    for library, known in KNOWN.items():
        for name in _DISTRIBUTIONS[library]:
            with contextlib.suppress(PackageNotFoundError):
                installed = version(name)
                if tuple(int(part) for part in re.findall(r"\d+", installed)[:2]) > known:
                    newer.append(f"{name} {installed}")
    return newer


def keep_home_clean() -> None:
    """Let matplotlib keep its font list in our own cache folder; for processes that are ours, not for a notebook.

    The pictures then do not depend on the user's matplotlibrc either. MPLCONFIGDIR is respected where it is set.
    """
    try:
        os.environ.setdefault("MPLCONFIGDIR", str(user_cache() / "matplotlib"))
    except RuntimeError:
        return  # no home folder: matplotlib takes a temporary folder by itself


def _too_late(package: str, otherwise: str) -> None:
    _LATE.append(package)
    warnings.warn(
        f"{package} was imported before stamp_deploy, so it may already have reported to its maker, and may go on: "
        f"import stamp_deploy first, {otherwise}",
        RuntimeWarning,
        stacklevel=4,
    )
