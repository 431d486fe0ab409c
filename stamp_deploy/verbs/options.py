"""Options that several verbs share. Their names are the fields of `InferOptions`, which are so read in one place."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from ..command import Decorate, names_of, option, together
from ..config import DEFAULT_WRITERS, ICC_USES, ROI_USES, InferOptions
from ..writers.formats import FORMATS

PATH = click.Path(path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
MODEL, READING, ENGINE, OUTPUT = "Model", "Reading the slide", "Engine", "Output"
DRAWN = "Drawn by hand"

signature_option = option(
    "--require-signature",
    type=PATH,
    group=MODEL,
    help="Refuse a bundle that the owner of this public key (PEM) has not signed.",
)
engine_option = option(
    "--engine", default="auto", show_default=True, group=ENGINE,
    help="auto, onnxruntime, onnxruntime-cuda, openvino, tensorrt or tensorrt-rtx; or triton, with --url.",
)  # fmt: skip
url_option = option(
    "--url", metavar="URL", group=ENGINE, help="Triton server that --engine triton sends tiles to, as http://HOST:8000."
)
adapter_option = option("--adapter", group=MODEL, help="Which adapter to use, where the bundle holds several.")
json_option = option("--json", "as_json", is_flag=True, group=OUTPUT, help="Print JSON on standard output.")
overwrite_option = option("--overwrite", is_flag=True, group=OUTPUT, help="Replace a finished result.")
strict_option = option(
    "--strict", is_flag=True, group=MODEL,
    help="No result for a slide that is outside what the model knows, or that cannot be judged (exit code 7).",
)  # fmt: skip
model_options = together(
    option("--bundle", type=PATH, required=True, group=MODEL, help="The model: a bundle folder."),
    adapter_option,
    signature_option,
)


def write_option(default: tuple[str, ...] = DEFAULT_WRITERS) -> Decorate:
    """--write, with all formats in its help."""
    return option(
        "--write", "writers", metavar="FORMAT,...", default=",".join(default), show_default=True, group=OUTPUT,
        callback=names_of, help=f"Output formats: {', '.join(FORMATS)}. See `stamp-deploy formats`.",
    )  # fmt: skip


def out_option(help: str) -> Decorate:
    """-o, --out: what it names differs from verb to verb."""
    return option("-o", "--out", type=PATH, required=True, group=OUTPUT, help=help)


def reading_options(mpp: str, *, whole_slide: bool = True) -> Decorate:
    """Options of how a slide is read; `mpp` is the help of --mpp, `whole_slide` adds limits and what is drawn."""
    limits = (
        option("--max-unreadable", metavar="SHARE", default=0.01, type=float, show_default=True, group=READING,
               help="Share of tissue tiles that may be unreadable; above it there is no result."),
        option("--time-limit", "time_limit_s", type=float, metavar="SECONDS", group=READING,
               help="Give up on a slide after so long of opening and reading it."),
    )  # fmt: skip
    drawn = (
        option("--roi", type=PATH, metavar="FILE|FOLDER", group=DRAWN,
               help="Annotations exported from QuPath (GeoJSON): score and summarise inside them, per class. "
                    "A folder holds one file per slide, named like the slide."),
        option("--roi-use", type=click.Choice(ROI_USES), default=ROI_USES[0], show_default=True, group=DRAWN,
               help="restrict: score only the tissue inside. split: score the whole slide. Both summarise per class."),
        option("--tissue-mask", type=PATH, metavar="FILE|FOLDER", group=DRAWN,
               help="Tissue drawn by hand, used in place of the tissue finder: PNG or TIFF of the slide, or GeoJSON."),
    )  # fmt: skip
    return together(
        option("--mpp", type=float, metavar="MICRONS", group=READING, help=mpp),
        option("--exact", is_flag=True, group=READING, help="Decode at full scale: no reduced JPEG scales (slower)."),
        option(
            "--icc",
            type=click.Choice(ICC_USES),
            group=READING,
            show_default="the bundle's, or none",
            help="srgb: convert tiles by the slide's ICC profile. none: leave colours as they are stored.",
        ),
        option("--all-tiles", is_flag=True, group=READING, help="Score every tile, bare glass too: no tissue mask."),
        option(
            "--min-fraction",
            type=float,
            metavar="SHARE",
            group=READING,
            show_default="the bundle's",
            help="Leave out tiles that hold less tissue than this share, as 0.5.",
        ),
        *((*limits, *drawn) if whole_slide else ()),
    )


def engine_options(*, sizes: bool = True) -> Decorate:
    """Options of the engine; `sizes` are tiles per batch and threads."""
    asked = (
        option("--batch", default=32, show_default=True, group=ENGINE, help="Tiles handed to the engine at once."),
        option("--threads", default=0, group=ENGINE, show_default=True,
               help="Threads for decoding and for a CPU engine; 0 is every core."),
    )  # fmt: skip
    return together(
        engine_option,
        option(
            "--precision",
            group=ENGINE,
            help="fp32, fp16, bf16 or int8; auto: the fastest that passes parity. By default the bundle's.",
        ),
        url_option,
        *(asked if sizes else ()),
    )


def take_infer_options(given: dict[str, Any]) -> InferOptions:
    """Take out of what click passed the values that are fields of `InferOptions`.

    Raises
    ------
    UsageError
        A value lies outside its range.
    """
    return InferOptions(**{field.name: given.pop(field.name) for field in fields(InferOptions) if field.name in given})
