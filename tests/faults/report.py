"""The figures of a run as a page: attempts, and what became of them, by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .harness import Tried
from .judge import Outcome

COLUMNS = (Outcome.REFUSED, Outcome.SURVIVED, Outcome.STOPPED, Outcome.CONTAINED, Outcome.BROKEN)
MOST_SHOWN = 40


def write_report(tried: Sequence[Tried], path: Path | None, *, seed: int, minutes: float) -> str:
    """The page; written to `path`, too, where one is given."""
    kinds = sorted({one.kind for one in tried})
    lines = [
        "# Hostile inputs and blows",
        "",
        f"{len(tried)} attempts in {minutes:.0f} minutes, seed {seed}. Written by `make faults`; what the words mean,",
        "and the rules that each attempt is held against, stand in [docs/security.md](../../docs/security.md#faults).",
        "",
        "| kind | attempts | " + " | ".join(COLUMNS) + " | slowest, s | most memory, MB |",
        "|---" * (len(COLUMNS) + 4) + "|",
    ]
    for kind in (*kinds, "all"):
        own = [one for one in tried if kind in (one.kind, "all")]
        counts = Counter(one.verdict.outcome for one in own)
        slowest = max((one.verdict.seconds for one in own), default=0.0)
        most = max((one.verdict.rss_bytes for one in own), default=0) / 1e6
        cells = (kind, len(own), *(counts[column] for column in COLUMNS), f"{slowest:.1f}", f"{most:.0f}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", "By kind of damage:", "", "| kind | damage | attempts | " + " | ".join(COLUMNS) + " |"]
    lines.append("|---" * (len(COLUMNS) + 3) + "|")
    for kind, what in sorted({(one.kind, one.what) for one in tried}):
        counts = Counter(one.verdict.outcome for one in tried if (one.kind, one.what) == (kind, what))
        cells = (kind, what, counts.total(), *(counts[column] for column in COLUMNS))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    broken = [one for one in tried if one.verdict.outcome in (Outcome.BROKEN, Outcome.CONTAINED)]
    if broken:
        lines += ["", "Broken or contained (repeat one with `python -m faults --again KIND:SEED` in tests/):", ""]
        for one in broken[:MOST_SHOWN]:
            why = "; ".join(one.verdict.problems) or one.verdict.said
            lines.append(f"- `{one.kind}:{one.seed}` {one.what}: {' '.join(why.split())[:300]}")
        if len(broken) > MOST_SHOWN:
            lines.append(f"- and {len(broken) - MOST_SHOWN} more")
    text = "\n".join(lines) + "\n"
    if path is not None:
        path.write_text(text, encoding="utf-8")
    return text
