"""The verb `models`: the table of foundation models. It needs neither torch nor timm."""

from __future__ import annotations

import json

import click

from stamp_deploy.command import Command, option, print_table


@click.command(cls=Command, examples=("models", "models --json"))
@option("--json", "as_json", is_flag=True, group="Output", help="Print JSON on standard output.")
def models(as_json: bool) -> None:
    """List the foundation models that can be adapted: licence, size, tile, and whether merged weights may be shared.

    The weights are not part of stamp-deploy: most are gated, and you fetch them from their authors. A model whose
    licence forbids sharing derived weights may be adapted and used; its bundle stays in house. Any other timm
    backbone can be named as timm/NAME.
    """
    from .model.registry import REGISTRY

    if as_json:
        keys = ("timm_name", "licence", "share_merged", "params_m", "dim", "embed", "tile_px", "mpp", "note")
        click.echo(
            json.dumps({name: {key: getattr(pfm, key) for key in keys} for name, pfm in REGISTRY.items()}, indent=2)
        )
        return
    numbers = ("million parameters", "embedding", "tile px", "um/px")
    print_table(
        ("model", "licence of the weights", "share merged", *numbers, "note"),
        (
            (
                name,
                pfm.licence,
                "yes" if pfm.share_merged else "no",
                f"{pfm.params_m:,.1f}" if pfm.params_m else "-",
                str(pfm.dim),
                str(pfm.tile_px),
                f"{pfm.mpp:g}",
                pfm.note,
            )
            for name, pfm in REGISTRY.items()
        ),
        right=numbers,
    )
