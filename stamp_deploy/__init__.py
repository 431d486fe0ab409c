"""stamp-deploy: molecular inference on whole-slide images, without torch at run time."""

__version__ = "0.1.0"
