"""evaluation.html: one page with every figure inside, and the files beside it."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

from stamp_deploy import __version__, html_page
from stamp_deploy.atomic import staged_directory, write_json_atomic
from stamp_deploy.provenance import RESEARCH_USE

from .figures import figures

LABELS = {"auroc": "AUROC", "auprc": "AUPRC", "c_index": "Harrell's C", "accuracy": "Accuracy"}


def write_head_evaluation(document: dict[str, Any], out: Path, *, overwrite: bool) -> None:
    """head-evaluation.json, evaluation.html and the figures, all or nothing."""
    pictures = figures(document)
    with staged_directory(out, overwrite=overwrite) as folder:
        write_json_atomic(folder / "head-evaluation.json", document)
        for name, svg in pictures.items():
            (folder / f"{name}.svg").write_bytes(svg)
        (folder / "evaluation.html").write_text(_page("head.html.j2", document, pictures), encoding="utf-8")


def write_comparison(document: dict[str, Any], out: Path, *, overwrite: bool) -> None:
    """encoder-comparison.json and comparison.html, both or none."""
    with staged_directory(out, overwrite=overwrite) as folder:
        write_json_atomic(folder / "encoder-comparison.json", document)
        (folder / "comparison.html").write_text(_page("encoders.html.j2", document, {}), encoding="utf-8")


def _page(template: str, document: dict[str, Any], pictures: dict[str, bytes]) -> str:
    return html_page.render_page(
        __package__,
        template,
        styles=("evaluation.css",),
        scripts=(),
        data={},
        d=document,
        labels=LABELS,
        figures={name: b64encode(svg).decode() for name, svg in pictures.items()},
        number=number,
        interval=interval,
        share=share,
        software=__version__,
        research_use=RESEARCH_USE,
    )


def number(value: float | None, digits: int = 3) -> str:
    """For a person."""
    return "none" if value is None else f"{value:.{digits}f}"


def interval(found: Any) -> str:
    """ "low to high" of a pair or of a record with low and high."""
    if found is None:
        return "none"
    low, high = (found["low"], found["high"]) if isinstance(found, dict) else found
    return f"{low:.3f} to {high:.3f}"


def share(found: dict[str, float] | None) -> str:
    """A share with its interval, in per cent."""
    if found is None:
        return "none"
    return f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})"
