"""The verb ``formats``: what --write can name."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from ..command import Command
from ..config import DEFAULT_WRITERS
from ..writers.formats import FORMATS
from .options import json_option


@click.command(cls=Command, examples=("formats", "formats --json"))
@json_option
def formats(as_json: bool) -> None:
    """List the output formats: files, what opens them, the extra that they need."""
    if as_json:
        rows = {name: {**asdict(form), "default": name in DEFAULT_WRITERS} for name, form in FORMATS.items()}
        click.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("format", "files", "opened with", "extra", "notes"):
        table.add_column(heading)
    for name, form in FORMATS.items():
        notes = [*(["default"] if name in DEFAULT_WRITERS else []), *(["DICOM slides only"] if form.needs_slide else [])]
        # A bracketed part would be taken for rich's markup.
        files = form.files.replace("[", r"\[")
        table.add_row(name, files, form.opened_with, form.extra or "-", ", ".join(notes))
    Console(width=None if click.get_text_stream("stdout").isatty() else 140).print(table)
