"""stamp-deploy: molecular inference on whole-slide images, without torch at run time."""

from .offline import silence

__version__ = "0.1.0"

silence()  # before anything else is imported: see offline.py
