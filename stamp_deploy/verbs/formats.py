"""The verb ``formats``: what --write can name."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from ..command import Command, print_table
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
    print_table(
        ("format", "files", "opened with", "extra", "notes"),
        (
            (
                name,
                form.files,
                form.opened_with,
                form.extra or "-",
                "default" if name in DEFAULT_WRITERS else "DICOM slides only" if form.needs_slide else "",
            )
            for name, form in FORMATS.items()
        ),
    )
