"""What ``import stamp_deploy as sd`` gives: slides, bundles and results as a notebook wants them.

Everything here is made of the modules below it; nothing of the flow is done again.
"""

from __future__ import annotations

from .functions import infer_slide, load_bundle, load_engine, open_slide, read_result
from .slide_result import SlideResult
from .slide_tiles import OpenSlide

__all__ = ["OpenSlide", "SlideResult", "infer_slide", "load_bundle", "load_engine", "open_slide", "read_result"]
