"""The bundle: a folder that holds everything a slide needs, and the only way to open one.

`load_bundle` trusts nothing: the signature (if one is demanded) is checked over the bytes of bundle.json,
then its rules, then the size and SHA-256 of every file, then the ONNX files' declared shapes and external
data. Only after that may a runtime parse anything. docs/bundle.md is the format on one page.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ..atomic import DONE_MARKER, write_json_atomic
from ..errors import BundleError
from ..hashing import sha256_file
from ..system import isolation
from ..validation import Validation
from .contents import OnnxBytes, check_listed, read_listed, read_onnx
from .onnx_scan import Dim, OnnxFacts
from .rules import REMEDY
from .schema import FIRST_OUTPUTS, latest, parse_json, validate
from .signature import SIGNATURE_FILE, check_signature
from .validation_block import read_validation

BUNDLE_FILE = "bundle.json"
ENCODER_FILE = "encoder.onnx"
GOLDEN_DIR = "golden"
RUN_FILE, RESULT_FILE = "run.json", "result.json"
"""What a training run and a result hold, and a bundle does not."""
_UNLISTED = frozenset({BUNDLE_FILE, SIGNATURE_FILE, DONE_MARKER})


@dataclass(frozen=True)
class HeadSpec:
    """A slide-level head.

    The ONNX file takes ``embeddings`` float32 [N, D] and gives ``logits`` float32 [C] and ``attention``
    float32 [N] (softmax over the tiles). C is ``len(classes)`` for binary and multiclass heads, whose
    probabilities are softmax(logits / temperature); it is 1 for survival heads, whose logit is a log hazard.

    Attributes
    ----------
    thresholds : tuple of float
        Binary: one, on the probability of ``classes[1]``. Multiclass: none (argmax) or one a class.
        Survival: cuts of the log hazard between risk groups.
    abstain : (low, high), optional
        Binary: a probability of ``classes[1]`` inside the band is no call. Multiclass: the largest
        probability inside the band is no call.
    details : dict
        Task, target column, calibration and training provenance, as the trainer stated them.
    """

    name: str
    file: str
    kind: str
    classes: tuple[str, ...]
    temperature: float
    thresholds: tuple[float, ...]
    abstain: tuple[float, float] | None
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The head as it stands in bundle.json."""
        return {
            "name": self.name,
            "file": self.file,
            "kind": self.kind,
            "classes": list(self.classes),
            "temperature": self.temperature,
            "thresholds": list(self.thresholds),
            "abstain": None if self.abstain is None else list(self.abstain),
            "details": self.details,
        }


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. Lengths in pixels, ``mpp`` in microns per pixel, mean and std on the 0 to 1 scale."""

    path: Path
    schema_version: int
    name: str
    pfm_id: str
    pfm_licence: str
    precision: str
    tile_px: int
    mpp: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    embedding_dim: int
    pathways: tuple[str, ...]
    gene_set_sha256: str
    heads: tuple[HeadSpec, ...]
    tissue: dict[str, Any]
    input_range: dict[str, Any]
    adapter: dict[str, Any]
    training_data: dict[str, Any]
    parity: dict[str, Any]
    pfm: dict[str, Any]
    software: dict[str, Any]
    created_utc: str
    files: dict[str, dict[str, Any]]
    encoder_file: str
    golden_dir: str
    outputs: tuple[str, ...]
    """Names of the encoder's outputs; ``pathways_global`` is the last where there is one."""
    validation: Validation
    """What was measured of the scores; `Validation.lacks` says what was not."""
    trust_file: str | None
    """The reference of what the model knows (trust/reference.py); None where the bundle has none."""
    sha256: str
    """SHA-256 of the bytes of bundle.json: the identity of the bundle."""

    @property
    def has_global_scores(self) -> bool:
        """Whether the encoder gives the read-out that is comparable across slides."""
        return "pathways_global" in self.outputs

    @property
    def widths(self) -> dict[str, int]:
        """Values a tile in each of the encoder's outputs."""
        return {name: self.embedding_dim if name == "embedding" else len(self.pathways) for name in self.outputs}

    @property
    def encoder(self) -> Path:
        """The encoder's ONNX file."""
        return self.path / self.encoder_file

    @property
    def golden(self) -> Path:
        """The folder of golden tiles and their expected outputs."""
        return self.path / self.golden_dir

    @property
    def trained_on(self) -> tuple[str, ...]:
        """What the model was trained on beside 8-bit RGB of brightfield slides (kinds of slide/colour.py)."""
        return tuple(self.pfm.get("trained_on", ()))

    def head_path(self, head: HeadSpec) -> Path:
        """The ONNX file of a head."""
        return self.path / head.file

    def read(self, name: str) -> bytes:
        """The bytes of a file of the bundle, whose hash has just been checked.

        Raises
        ------
        BundleError
            The file has been changed since the bundle was opened.
        """
        return read_listed(self.path, name, self.files[name])

    def read_encoder(self) -> OnnxBytes:
        """The encoder as bytes; see `read`."""
        return read_onnx(self.path, self.encoder_file, self.files)

    def read_head(self, head: HeadSpec) -> OnnxBytes:
        """A head as bytes; see `read`."""
        return read_onnx(self.path, head.file, self.files)


def load_bundle(path: str | os.PathLike[str], *, require_signature: str | os.PathLike[str] | None = None) -> Bundle:
    """Verify and open a bundle.

    Parameters
    ----------
    path : path-like
        The bundle folder.
    require_signature : path-like, optional
        An Ed25519 public key (PEM). The bundle must carry a signature that fits it.

    Raises
    ------
    BundleError
        Anything about the bundle is not as it should be; exit code 5.
    """
    folder = Path(path)
    isolation.note(bundle=str(folder), stage="loading the bundle")
    if not folder.is_dir():
        raise BundleError("there is no bundle folder here", path=folder, remedy="check the path given to --bundle")
    raw = _read_manifest(folder)
    if require_signature is not None:
        check_signature(raw, folder / SIGNATURE_FILE, Path(require_signature))
    try:
        document = validate(parse_json(raw))
    except BundleError as error:
        raise BundleError(error.cause, path=folder, remedy=error.remedy) from error
    models = {document["encoder"], *(head["file"] for head in document["heads"])}
    facts = _check_files(folder, document["files"], models)
    bundle = _build(folder, document, hashlib.sha256(raw).hexdigest())
    _check_models(bundle, facts)
    return bundle


def write_bundle_json(folder: Path, document: dict[str, Any]) -> Bundle:
    """Hash every file in `folder`, complete and validate `document`, write bundle.json, and load it back.

    Parameters
    ----------
    folder : Path
        The finished content of a bundle, without bundle.json.
    document : dict
        bundle.json without ``schema_version`` and ``files``; ``outputs``, ``validation`` and ``trust`` may be missing
        where the encoder gives two outputs and nothing was measured.

    Raises
    ------
    BundleError
        The content breaks a rule of the schema.
    """
    files = {
        name: {"sha256": sha256_file(folder / name), "size": (folder / name).stat().st_size}
        for name in sorted(_walk(folder) - _UNLISTED)
    }
    complete = validate({**latest(document), "files": files})
    write_json_atomic(folder / BUNDLE_FILE, complete)
    return load_bundle(folder)


def _read_manifest(folder: Path) -> bytes:
    from .schema import MAX_JSON_BYTES

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


def _check_files(folder: Path, files: dict[str, dict[str, Any]], models: set[str]) -> dict[str, OnnxFacts]:
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
    models = models | {name for name in files if name.endswith(".onnx")}
    for name in files.keys() - models:
        check_listed(folder, name, files[name])
    return {name: read_onnx(folder, name, files, with_data=False).facts for name in sorted(models)}


def _build(folder: Path, document: dict[str, Any], sha256: str) -> Bundle:
    heads = tuple(
        HeadSpec(
            name=head["name"],
            file=head["file"],
            kind=head["kind"],
            classes=tuple(head["classes"]),
            temperature=float(head["temperature"]),
            thresholds=tuple(float(value) for value in head["thresholds"]),
            abstain=None if head.get("abstain") is None else (float(head["abstain"][0]), float(head["abstain"][1])),
            details=head["details"],
        )
        for head in document["heads"]
    )
    mean, std = (tuple(float(value) for value in document[key]) for key in ("mean", "std"))
    same = ("schema_version", "name", "precision", "tile_px", "embedding_dim", "gene_set_sha256", "tissue")
    more = ("input_range", "adapter", "training_data", "parity", "pfm", "software", "created_utc", "files")
    return Bundle(
        path=folder,
        pfm_id=document["pfm"]["id"],
        pfm_licence=document["pfm"]["licence"],
        mpp=float(document["mpp"]),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        pathways=tuple(document["pathways"]),
        heads=heads,
        encoder_file=document["encoder"],
        golden_dir=document["golden"],
        outputs=tuple(document.get("outputs", FIRST_OUTPUTS)),
        validation=read_validation(document),
        trust_file=document.get("trust"),
        sha256=sha256,
        **{key: document[key] for key in (*same, *more)},
    )


def _check_models(bundle: Bundle, facts: dict[str, OnnxFacts]) -> None:
    """Declared inputs and outputs of the encoder and the heads."""
    tile, dim = bundle.tile_px, bundle.embedding_dim
    encoder = facts[bundle.encoder_file]
    _expect(bundle, bundle.encoder_file, encoder, "inputs", {"tiles": ("uint8", ("n", tile, tile, 3))})
    wanted: dict[str, tuple[str, tuple[Dim, ...]]]
    wanted = {output: ("float32", ("n", width)) for output, width in bundle.widths.items()}
    _expect(bundle, bundle.encoder_file, encoder, "outputs", wanted)
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
