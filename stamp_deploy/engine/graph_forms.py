"""The forms in which a GPU engine may want the encoder's graph: rewritten in its own copy, never in the bundle.

The bundle's graph is plain, so that every runtime reads it. Each engine is given what it runs fastest:

    merged products      MatMuls of one input become one, whose result is split (queries, keys and values)
    fused attention      MatMul, Softmax, MatMul and the turning around them become Attention of opset 23
    fixed batch          the free axis is a number, and what was computed from it is a constant
    more in low          LayerNormalization, Gelu or the residual stream in fp16, too (mixed_precision.py converts)

An engine begins with the fastest form. One that fails parity is remembered, and the next is tried.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cache import cache_dir, key_of, read_entry, write_entry

if TYPE_CHECKING:
    from ..bundle import Bundle

FUSING_ONNXRUNTIME = (1, 25)
"""ONNX Runtime's CUDA kernels of Attention are complete from here on; 1.24 fell back to the CPU."""
FORMS_VERSION = 1
"""Part of the cache key: raise it when a rewriting changes."""
EXPIRES_S = 24 * 3600.0
"""A form that failed parity is tried again after this long."""


@dataclass(frozen=True)
class Form:
    """How a graph is rewritten.

    Attributes
    ----------
    name : str
        For `EngineInfo.details`.
    low : frozenset of str
        Operators that run in the lower precision beside the matrix products.
    fused : bool
        Merged products and fused attention.
    batch : int, optional
        The fixed batch.
    """

    name: str = "plain"
    low: frozenset[str] = frozenset()
    fused: bool = False
    batch: int | None = None

    def key(self) -> list[Any]:
        """What the outcome depends on."""
        return [FORMS_VERSION, sorted(self.low), self.fused, self.batch]

    @property
    def changes(self) -> bool:
        """Whether the graph comes out as another one."""
        return bool(self.low) or self.fused or self.batch is not None


PLAIN = Form()
_ACTIVATION = frozenset({"Gelu"})
_NORMS = _ACTIVATION | {"LayerNormalization"}
_RESIDUAL = _NORMS | {"Add", "Mul"}


def forms_of(engine: str, precision: str, batch: int, version: str = "") -> tuple[Form, ...]:
    """The forms of an engine, the fastest first, for a fp32 bundle that it runs in `precision`.

    Parameters
    ----------
    batch : int
        The engine's fixed batch.
    version : str
        Of the engine's library.
    """
    low = precision in ("fp16", "bf16")
    if engine == "onnxruntime-cuda":
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if numbers < FUSING_ONNXRUNTIME:
            return (PLAIN,)
        fused = (Form("fused attention", _ACTIVATION if low else frozenset(), True), PLAIN)
        return (Form("fused attention, norms in fp16", _NORMS, True), *fused) if precision == "fp16" else fused
    if engine in ("tensorrt", "tensorrt-rtx"):
        fixed = Form("fixed batch", frozenset(), False, batch)
        if not low:
            return (fixed,)
        half = (Form("fixed batch, residual in fp16", _RESIDUAL, False, batch),) if precision == "fp16" else ()
        return (*half, Form("fixed batch, Gelu in low", _ACTIVATION, False, batch), fixed)
    return (PLAIN,)


def pick_form(bundle: Bundle, engine: str, precision: str, forms: tuple[Form, ...]) -> tuple[Form, bool]:
    """The first form that has not failed parity here lately, and whether another one follows; the last stays.

    A bundle that was exported in a lower precision runs as it is.
    """
    if bundle.precision != "fp32":
        return PLAIN, False
    for form in forms[:-1]:
        entry = read_entry(_failed(bundle, engine, precision, form)) or {}
        failed_unix = entry.get("failed_unix")
        if not isinstance(failed_unix, int | float) or not 0 <= time.time() - failed_unix < EXPIRES_S:
            return form, True
    return forms[-1], False


def remember_failure(bundle: Bundle, engine: str, precision: str, form: Form) -> bool:
    """Keep that a form failed parity, so that the next is tried; says whether it was kept."""
    return write_entry(_failed(bundle, engine, precision, form), {"failed_unix": time.time(), "form": form.name})


def _failed(bundle: Bundle, engine: str, precision: str, form: Form) -> Path:
    from .machine import machine_facts

    key = key_of("failed", bundle.sha256, engine, precision, form.key(), machine_facts())
    return cache_dir() / "forms" / f"{key}.json"
