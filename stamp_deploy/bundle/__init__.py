"""The bundle: a folder that holds everything a slide needs, checked before anything in it is used."""

from .bundle import ENCODER_FILE, GOLDEN_DIR, Bundle, HeadSpec
from .load import BUNDLE_FILE, load_adapters, load_bundle, write_adapters_json, write_bundle_json

__all__ = [
    "BUNDLE_FILE",
    "ENCODER_FILE",
    "GOLDEN_DIR",
    "Bundle",
    "HeadSpec",
    "load_adapters",
    "load_bundle",
    "write_adapters_json",
    "write_bundle_json",
]
