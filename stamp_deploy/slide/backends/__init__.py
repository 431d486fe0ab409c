"""Readers of slide files: each opens a file, lists its levels and reads regions of them."""

from .base import Backend, Level, UnknownFormatError, levels_of_sizes

__all__ = ["Backend", "Level", "UnknownFormatError", "levels_of_sizes"]
