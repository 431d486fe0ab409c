"""The commands about bundles: verify, parity, build, sign, triton."""

from __future__ import annotations

from pathlib import Path

import click

from ..command import Command, option
from .options import (
    ENGINE,
    FOLDER,
    OUTPUT,
    PATH,
    adapter_option,
    out_option,
    signature_option,
    url_option,
)

SERVING = "Server"
_device_option = option("--device", default=0, show_default=True, group=ENGINE, help="Index of the GPU.")


@click.command(cls=Command, examples=("verify bundle --require-signature key.pub", "verify result"))
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@signature_option
def verify(path: Path, require_signature: Path | None) -> None:
    """Check the SHA-256 of every file of a bundle or a result at PATH, and a signature if a key is given.

    PATH may also be a record that `stamp-deploy parity --sign` wrote.
    """
    from ..checks.verify import verify_path

    click.echo(verify_path(path, require_signature))


@click.command(
    cls=Command,
    examples=("parity bundle", "parity bundle --engine onnxruntime -o site.json --signed-off-by 'A. Physicist'"),
)
@click.argument("bundle", type=FOLDER)
@option(
    "--engine",
    "engines",
    multiple=True,
    group=ENGINE,
    help="Engine to check; may be repeated. By default, or with auto, all that load here.",
)
@option("--precision", group=ENGINE, help="Precision to check; by default each that `infer` would choose from.")
@option("--batch", default=32, show_default=True, group=ENGINE, help="Tiles handed over at once, as `infer` will.")
@_device_option
@url_option
@option("-o", "--out", type=PATH, group=OUTPUT, help="Write the record here as JSON, and the table beside it as .txt.")
@option("--signed-off-by", default="", group=OUTPUT, help="Name of the person who accepts the machine, for the record.")
@option("--sign", "key", type=PATH, group=OUTPUT, help="Ed25519 private key (PEM): sign the record, as FILE.sig.")
@adapter_option
@signature_option
def parity(
    bundle: Path,
    engines: tuple[str, ...],
    precision: str | None,
    batch: int,
    device: int,
    url: str | None,
    out: Path | None,
    signed_off_by: str,
    key: Path | None,
    require_signature: Path | None,
    adapter: str | None,
) -> None:
    """Accept the BUNDLE on this machine: run its golden tiles through the engines here and compare.

    Run it again after a change of driver, engine or hardware. Exit code 5 when an engine fails.
    """
    from ..bundle import load_bundle
    from ..checks.acceptance import check_site, table, write_record
    from ..errors import UsageError

    if key is not None and out is None:
        raise UsageError("--sign needs a record to sign", remedy="name one with -o FILE.json")
    loaded = load_bundle(bundle, require_signature=require_signature, adapter=adapter)
    site = check_site(
        loaded, engines, precision=precision, batch=batch, device=device, url=url, signed_off_by=signed_off_by
    )
    click.echo(table(site))
    if out is not None:
        write_record(site, out, key)
        click.echo(f"record  {out}" + (f", signed as {out.name}.sig" if key is not None else ""))
    site.raise_if_failed()


@click.command(cls=Command, examples=("build bundle --engine tensorrt --precision fp16",))
@click.argument("bundle", type=FOLDER)
@option(
    "--engine",
    type=click.Choice(["tensorrt", "tensorrt-rtx"]),
    required=True,
    group=ENGINE,
    help="Engine to build for.",
)
@option("--precision", group=ENGINE, help="fp32, fp16 or bf16, or int8 where the bundle carries it; fp16 by default.")
@option("--batch", default=32, show_default=True, group=ENGINE, help="Tiles per batch that the plan is made for.")
@_device_option
@adapter_option
@signature_option
def build(
    bundle: Path,
    engine: str,
    precision: str | None,
    batch: int,
    device: int,
    require_signature: Path | None,
    adapter: str | None,
) -> None:
    """Compile the BUNDLE's encoder for this machine's GPU, and accept the plan by parity on its golden tiles.

    The plan goes to the cache ($STAMP_CACHE_DIR, else ~/.cache/stamp-deploy), where `infer` and `batch` find it.
    """
    from ..bundle import load_bundle
    from ..checks.acceptance import build_engine

    loaded = load_bundle(bundle, require_signature=require_signature, adapter=adapter)
    click.echo(build_engine(loaded, engine, precision=precision, batch=batch, device=device))


@click.command(cls=Command, examples=("sign bundle --key key.pem",))
@click.argument("bundle", type=FOLDER)
@option("--key", metavar="FILE", type=PATH, required=True, help="Ed25519 private key, unencrypted PEM.")
def sign(bundle: Path, key: Path) -> None:
    """Sign a BUNDLE: check it, then write bundle.json.sig beside bundle.json.

    A key pair: openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out key.pub
    """
    from ..bundle import load_adapters
    from ..bundle.signature import sign_bundle

    found = load_adapters(bundle).values()
    click.echo(f"signed  {sign_bundle(bundle, key).name} of bundle {', '.join(one.sha256[:12] for one in found)}")


@click.command(cls=Command, examples=("triton bundle -o models --max-batch 64",))
@click.argument("bundle", type=FOLDER)
@out_option("Model repository; made if absent.")
@option(
    "--max-batch",
    group=SERVING,
    type=click.IntRange(1, 4096),
    default=64,
    show_default=True,
    help="Largest batch of tiles.",
)
@option(
    "--instances",
    group=SERVING,
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Copies of each model per device.",
)
@option(
    "--device", group=SERVING, type=click.Choice(["gpu", "cpu"]), default="gpu", show_default=True,
    help="What the server runs the models on.",
)  # fmt: skip
@adapter_option
@signature_option
@option("--overwrite", is_flag=True, group=OUTPUT, help="Replace models of the same names.")
def triton(
    bundle: Path,
    out: Path,
    max_batch: int,
    instances: int,
    device: str,
    require_signature: Path | None,
    adapter: str | None,
    overwrite: bool,
) -> None:
    """Write the BUNDLE as a model repository for NVIDIA Triton; models of other names are left alone."""
    from ..bundle import load_bundle
    from ..bundle.triton import write_repository

    loaded = load_bundle(bundle, require_signature=require_signature, adapter=adapter)
    for name in write_repository(
        loaded, out, max_batch=max_batch, instances=instances, device=device, overwrite=overwrite
    ):
        click.echo(f"model   {name}")
