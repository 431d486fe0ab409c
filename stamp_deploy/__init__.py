"""stamp-deploy: molecular inference on whole-slide images, without torch at run time.

>>> import stamp_deploy as sd
>>> bundle = sd.load_bundle("bundle")
>>> result = sd.infer_slide("slide.svs", bundle, progress=False)
>>> result.pathway_names
('HYPOXIA', 'ANGIOGENESIS', 'APOPTOSIS', 'G2M_CHECKPOINT')

Names are imported on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .system.offline import silence

__version__ = "0.1.0"

silence()  # before anything else is imported: see offline.py

_HOME = {
    "Bundle": "bundle",
    "InferOptions": "config",
    "OpenSlide": "api",
    "Result": "result",
    "SlideResult": "api",
    "TileBatch": "tiles",
    "errors": "errors",
    "infer_slide": "api",
    "load_bundle": "api",
    "load_engine": "api",
    "open_slide": "api",
    "read_result": "api",
}
"""Public name -> module of this package that holds it."""
__all__ = [
    "Bundle",
    "InferOptions",
    "OpenSlide",
    "Result",
    "SlideResult",
    "TileBatch",
    "__version__",
    "errors",
    "infer_slide",
    "load_bundle",
    "load_engine",
    "open_slide",
    "read_result",
]

if TYPE_CHECKING:
    from . import errors
    from .api import OpenSlide, SlideResult, infer_slide, load_bundle, load_engine, open_slide, read_result
    from .bundle import Bundle
    from .config import InferOptions
    from .result import Result
    from .tiles import TileBatch


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOME[name]}")
    return module if name == _HOME[name] else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
