"""The verb ``fhir``: a result as HL7 FHIR."""

from __future__ import annotations

from pathlib import Path

import click

from ..command import Command, option
from .options import OUTPUT, PATH

REFERENCES = "What the hospital calls them"


@click.command(
    cls=Command,
    examples=(
        "fhir result",
        "fhir result --patient Patient/123 --specimen Specimen/9 --order ServiceRequest/77 -o report.fhir.json",
    ),
)
@click.argument("result", type=PATH)
@option("--patient", default="", group=REFERENCES, metavar="Patient/ID", help="Whose slide it is.")
@option("--specimen", default="", group=REFERENCES, metavar="Specimen/ID", help="What the slide was cut from.")
@option("--order", default="", group=REFERENCES, metavar="ServiceRequest/ID", help="The order that asked for it.")
@option("-o", "--out", type=PATH, group=OUTPUT, show_default="report.fhir.json, in this folder", help="File to write.")
def fhir(result: Path, patient: str, specimen: str, order: str, out: Path | None) -> None:
    """Write a finished RESULT as FHIR R4: a preliminary DiagnosticReport with its Observations.

    The file is a transaction bundle for the hospital's integration engine, which sends it; nothing is sent from here.
    Sent twice it creates nothing new. It names no file and no patient but those that are given.
    """
    from ..fhir import write_fhir
    from ..fhir.write import FILE

    target = out or Path(FILE)
    bundle = write_fhir(result, target, {"subject": patient, "specimen": specimen, "basedOn": order})
    click.echo(f"written {target} ({len(bundle['entry'])} resources, preliminary)")
