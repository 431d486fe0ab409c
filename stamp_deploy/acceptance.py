"""The commands that accept a bundle on this machine: verify and parity."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from .bundle import Bundle
    from .parity import StageReport


@click.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--require-signature", type=click.Path(path_type=Path), help="Public key that must have signed."
)
def verify(path: Path, require_signature: Path | None) -> None:
    """Check the size and SHA-256 of every file of a bundle at PATH, and its signature if a key is given."""
    from .bundle import load_bundle

    bundle = load_bundle(path, require_signature=require_signature)
    signed = "signature fits" if require_signature else "signature not asked for"
    click.echo(
        f"{bundle.name}: {len(bundle.files)} files are as recorded; {signed}; bundle {bundle.sha256[:12]}"
    )


@click.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--engine", default="onnxruntime", show_default=True, help="The engine to be checked.")
@click.option("--precision", help="Its precision; the engine's own choice by default.")
@click.option("--batch", type=int, default=16, show_default=True, help="Tiles handed over at once.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the record here as JSON.")
def parity(path: Path, engine: str, precision: str | None, batch: int, out: Path | None) -> None:
    """Run the golden tiles of the bundle at PATH through an engine of this machine and compare."""
    from .atomic import write_json_atomic
    from .bundle import load_bundle
    from .engine import load_engine
    from .engine.golden import check_engine
    from .parity import to_table

    bundle = load_bundle(path)
    loaded = load_engine(bundle, engine, batch=batch, precision=precision)
    try:
        report = check_engine(bundle, loaded)
    finally:
        loaded.close()
    click.echo(to_table([report]))
    if out is not None:
        write_json_atomic(out, acceptance_record(bundle, [report]))
    report.raise_if_failed()


def acceptance_record(bundle: Bundle, reports: list[StageReport]) -> dict[str, Any]:
    """The JSON record of a parity run on this machine."""
    record: dict[str, Any] = json.loads(
        json.dumps(
            {
                "bundle": {"name": bundle.name, "sha256": bundle.sha256},
                "machine": {
                    "system": platform.platform(),
                    "processor": platform.processor() or platform.machine(),
                },
                "checked_utc": datetime.now(UTC).isoformat(timespec="seconds"),
                "passed": all(reports),
                "stages": [report.to_dict() for report in reports],
            }
        )
    )
    return record
