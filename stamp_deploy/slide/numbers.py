"""Numbers as people and scanners write them into metadata."""

from __future__ import annotations

import math
import re

_NUMBER = re.compile(r"[+-]?(?:\d{1,18}(?:[.,]\d{0,30})?|[.,]\d{1,30})(?:[eE][+-]?\d{1,3})?", re.ASCII)


def number(text: str) -> float:
    """The number that a text holds and nothing else beside it; NaN where there is none.

    A decimal comma, as a computer set to German or French writes it, is a decimal point. What Python would take
    beyond that is refused: "0_5", "nan", "inf", digits of other scripts. So are thousands ("1,234.5").
    """
    text = text.strip()
    return float(text.replace(",", ".")) if _NUMBER.fullmatch(text) else math.nan


def magnification(text: str) -> float:
    """An objective's power: "40", "40x", "40 X"; NaN where the text is anything else."""
    return number(re.sub(r"\s*[xX\u00d7]\s*$", "", text))
