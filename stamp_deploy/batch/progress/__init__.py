"""What a batch shows while it runs: a progress bar on a terminal, JSON lines anywhere else."""

from __future__ import annotations

import io
import sys

from .json_lines import JsonView
from .pace import Pace
from .terminal import TerminalView
from .view import Unfailing, View

__all__ = ["JsonView", "Pace", "TerminalView", "Unfailing", "View", "choose_view"]


def choose_view(*, names: bool = False) -> View:
    """The bar on a terminal, JSON lines otherwise."""
    if not sys.stdout.isatty():
        return JsonView(names=names)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that is not UTF-8 shows escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    return TerminalView()
