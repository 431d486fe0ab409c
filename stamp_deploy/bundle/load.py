"""Opening a bundle, and writing one: nothing of it is used before it has been checked.

`load_bundle` trusts nothing: the signature (if one is demanded) is checked over the bytes of bundle.json,
then its rules, then the size and SHA-256 of every file, then the ONNX files' declared shapes and external
data. Only after that may a runtime parse anything. docs/bundle.md is the format on one page.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from ..atomic import DONE_MARKER, write_json_atomic
from ..errors import BundleError, UsageError
from ..hashing import sha256_file
from ..system import isolation
from .adapters import ADAPTERS_KEY, AdapterDocument, is_shared, pick, split
from .bundle import Bundle, build_bundle
from .contents import check_listed, read_onnx
from .onnx_scan import Dim, OnnxFacts
from .rules import REMEDY
from .schema import SCHEMA_VERSION, latest, validate
from .signature import SIGNATURE_FILE, check_signature
from .strict_json import MAX_JSON_BYTES, parse_json

BUNDLE_FILE = "bundle.json"
RUN_FILE, RESULT_FILE = "run.json", "result.json"
"""What a training run and a result hold, and a bundle does not."""
_UNLISTED = frozenset({BUNDLE_FILE, SIGNATURE_FILE, DONE_MARKER})


def load_bundle(
    path: str | os.PathLike[str],
    *,
    require_signature: str | os.PathLike[str] | None = None,
    adapter: str | None = None,
) -> Bundle:
    """Verify and open a bundle.

    Parameters
    ----------
    path : path-like
        The bundle folder.
    require_signature : path-like, optional
        An Ed25519 public key (PEM). The bundle must carry a signature that fits it.
    adapter : str, optional
        Which adapter of a bundle that holds several.

    Raises
    ------
    BundleError
        Anything about the bundle is not as it should be; exit code 5.
    UsageError
        The bundle holds several adapters and none was named, or none of that name.
    """
    found = load_adapters(path, require_signature=require_signature)
    if "" not in found:
        return found[pick(found, adapter)]
    if adapter is not None:
        raise UsageError(
            "the bundle holds one model and no adapters to choose from", path=Path(path), remedy="leave --adapter out"
        )
    return found[""]


def load_adapters(
    path: str | os.PathLike[str], *, require_signature: str | os.PathLike[str] | None = None
) -> dict[str, Bundle]:
    """Verify a bundle and open every adapter that it holds, by name; one model without a name is ``""``.

    Raises
    ------
    BundleError
        Anything about the bundle is not as it should be.
    """
    folder = Path(path)
    isolation.note(bundle=str(folder), stage="loading the bundle")
    if not folder.is_dir():
        raise BundleError("there is no bundle folder here", path=folder, remedy="check the path given to --bundle")
    raw = _read_manifest(folder)
    if require_signature is not None:
        check_signature(raw, folder / SIGNATURE_FILE, Path(require_signature))
    try:
        document = parse_json(raw)
        models = split(document) if is_shared(document) else {"": None}
        documents = {name: validate(document if one is None else one.document) for name, one in models.items()}
        facts = _check_files(folder, document["files"], documents, models)
        found = {}
        for name, one in models.items():
            bundle = build_bundle(folder, documents[name], one.sha256 if one else hashlib.sha256(raw).hexdigest())
            if one is not None:
                bundle = replace(bundle, merged=one.merged, adapter_name=name)
            _check_models(bundle, facts)
            found[name] = bundle.with_reference()
        return found
    except BundleError as error:
        raise BundleError(error.cause, path=error.path or folder, remedy=error.remedy) from error


def write_bundle_json(folder: Path, document: dict[str, Any]) -> Bundle:
    """Hash every file in `folder`, complete and validate `document`, write bundle.json, and load it back.

    Parameters
    ----------
    folder : Path
        The finished content of a bundle, without bundle.json.
    document : dict
        bundle.json without ``schema_version`` and ``files``; ``outputs``, ``validation``, ``trust`` and ``twins`` may
        be missing where the encoder gives two outputs, nothing was measured and there is one encoder.

    Raises
    ------
    BundleError
        The content breaks a rule of the schema.
    """
    complete = validate({**latest(document), "files": _listed(folder)})
    write_json_atomic(folder / BUNDLE_FILE, complete)
    return load_bundle(folder)


def write_adapters_json(folder: Path, name: str, adapters: dict[str, dict[str, Any]]) -> dict[str, Bundle]:
    """`write_bundle_json` for several adapters, each as `adapters.split` reads it; loads all of them back.

    Raises
    ------
    BundleError
        The content breaks a rule of the schema.
    """
    document = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        ADAPTERS_KEY: adapters,
        "files": _listed(folder),
    }
    for one in split(document).values():
        validate(one.document)
    write_json_atomic(folder / BUNDLE_FILE, document)
    return load_adapters(folder)


def _listed(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file of a bundle."""
    return {
        name: {"sha256": sha256_file(folder / name), "size": (folder / name).stat().st_size}
        for name in sorted(_walk(folder) - _UNLISTED)
    }


def _read_manifest(folder: Path) -> bytes:
    path = folder / BUNDLE_FILE
    if not path.exists() and (folder / RUN_FILE).is_file():
        raise BundleError(
            "this is a training run and holds no bundle.json yet",
            path=folder,
            remedy=f"export it first: stamp-deploy export {shlex.quote(folder.name or 'RUN')} -o BUNDLE",
        )
    if not path.exists() and (folder / RESULT_FILE).is_file():
        raise BundleError(
            "this is a result and holds no bundle.json",
            path=folder,
            remedy="name the bundle that it was scored with; result.json states its name and SHA-256",
        )
    if path.is_symlink() or not path.is_file():
        raise BundleError("the folder holds no bundle.json", path=folder, remedy=REMEDY)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise BundleError(f"bundle.json is larger than {MAX_JSON_BYTES} bytes", path=folder, remedy=REMEDY)
    try:
        with path.open("rb") as handle:
            return handle.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise BundleError(f"bundle.json cannot be read: {error.strerror}", path=folder, remedy=REMEDY) from error


def _walk(folder: Path) -> set[str]:
    """Every file below `folder`, as POSIX names; links and special files are refused."""
    found = set()
    for root, directories, names in os.walk(folder):
        for name in [*directories, *names]:
            path = Path(root, name)
            mode = path.lstat().st_mode
            relative = path.relative_to(folder).as_posix()
            if stat.S_ISREG(mode):
                found.add(relative)
            elif not stat.S_ISDIR(mode):
                _refuse(folder, f"{relative[:80]!r} is a link or a special file")
    return found


def _check_files(
    folder: Path,
    files: dict[str, dict[str, Any]],
    documents: dict[str, dict[str, Any]],
    adapters: Mapping[str, AdapterDocument | None],
) -> dict[str, OnnxFacts]:
    """Names first, then sizes, then hashes: the cheap refusals come before the long read.

    ONNX files come last and are walked over in the bytes that were hashed. Gives what the walk found in each.
    """
    present = _walk(folder)
    missing = sorted(set(files) - present)
    if missing:
        _refuse(folder, f"{missing[0]!r} is missing")
    extra = sorted(present - set(files) - _UNLISTED)
    if extra:
        _refuse(folder, f"{extra[0][:80]!r} is in the folder and not in bundle.json")
    for name, entry in files.items():
        size = (folder / name).stat().st_size
        if size != entry["size"]:
            _refuse(folder, f"{name!r} is {size} bytes and should be {entry['size']}")
    merged = {documents[name]["encoder"]: one.merged for name, one in adapters.items() if one is not None}
    models = {name for name in files if name.endswith(".onnx")}
    for document in documents.values():
        models |= {document["encoder"], *(one["file"] for key in ("heads", "twins") for one in document.get(key, []))}
    for name in files.keys() - models:
        check_listed(folder, name, files[name])
    return {
        name: read_onnx(folder, name, files, with_data=False, merged=merged.get(name)).facts for name in sorted(models)
    }


def _check_models(bundle: Bundle, facts: dict[str, OnnxFacts]) -> None:
    """Declared inputs and outputs of the encoder and the heads."""
    tile, dim = bundle.tile_px, bundle.embedding_dim
    wanted: dict[str, tuple[str, tuple[Dim, ...]]]
    for encoder in (bundle.encoder_file, *(twin.file for twin in bundle.twins)):
        _expect(bundle, encoder, facts[encoder], "inputs", {"tiles": ("uint8", ("n", tile, tile, 3))})
        wanted = {output: ("float32", ("n", width)) for output, width in bundle.widths.items()}
        _expect(bundle, encoder, facts[encoder], "outputs", wanted)
    for head in bundle.heads:
        classes = 1 if head.kind == "survival" else len(head.classes)
        _expect(bundle, head.file, facts[head.file], "inputs", {"embeddings": ("float32", ("n", dim))})
        wanted = {"logits": ("float32", (classes,)), "attention": ("float32", ("n",))}
        _expect(bundle, head.file, facts[head.file], "outputs", wanted)


def _expect(
    bundle: Bundle, name: str, facts: OnnxFacts, side: str, wanted: dict[str, tuple[str, tuple[Dim, ...]]]
) -> None:
    """Compare declared tensors with the wanted ones; "n" stands for the number of tiles, which must be free."""
    found = facts.inputs if side == "inputs" else facts.outputs
    if set(found) != set(wanted):
        _refuse(bundle.path, f"{name}: the {side} are {sorted(found)} and should be {sorted(wanted)}")
    for tensor, (dtype, shape) in wanted.items():
        spec = found[tensor]
        if spec.dtype != dtype:
            _refuse(bundle.path, f"{name}: {tensor} is {spec.dtype} and should be {dtype}")
        if spec.shape is None or len(spec.shape) != len(shape):
            _refuse(bundle.path, f"{name}: {tensor} has the shape {spec.shape} and should have {shape}")
        for have, want in zip(spec.shape, shape, strict=True):
            free = not isinstance(have, int)
            if (want == "n" and not free) or (isinstance(want, int) and not free and have != want):
                _refuse(bundle.path, f"{name}: {tensor} has the shape {spec.shape} and should have {shape}")


def _refuse(folder: Path, cause: str) -> NoReturn:
    raise BundleError(cause, path=folder, remedy=REMEDY)
