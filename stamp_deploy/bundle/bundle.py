"""A verified bundle as a record: what bundle.json says, and the bytes of the files that it lists."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..validation import Validation
from .adapter_weights import MergedFile
from .contents import OnnxBytes, read_listed, read_onnx
from .reference import NO_REFERENCE, TrustReference, read_reference
from .schema import FIRST_OUTPUTS
from .twins import Twin, read_twins
from .validation_block import read_validation

ENCODER_FILE = "encoder.onnx"
GOLDEN_DIR = "golden"


@dataclass(frozen=True)
class HeadSpec:
    """A slide-level head.

    The ONNX file takes ``embeddings`` float32 [N, D] and gives ``logits`` float32 [C] and ``attention``
    float32 [N] (softmax over the tiles). C is ``len(classes)`` for binary and multiclass heads, whose
    probabilities are softmax(logits / temperature); it is 1 for survival heads, whose logit is a log hazard.

    Attributes
    ----------
    thresholds : tuple of float
        Binary: one, on the probability of ``classes[1]``. Multiclass: none (argmax) or one per class.
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


@dataclass(frozen=True, repr=False)
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
    """The reference of what the model knows (`reference.py`); None where the bundle has none."""
    twins: tuple[Twin, ...]
    """The encoder in other precisions, for some engines."""
    sha256: str
    """SHA-256 of the bytes of bundle.json, or of an adapter's part of it: the identity of the model."""
    merged: MergedFile | None = None
    """The file in memory that the encoder of an adapter on a shared base names."""
    adapter_name: str = ""
    """Which of the bundle's adapters this is; empty where it holds one model."""
    reference: TrustReference | None = field(default=None, compare=False)
    """What `trust_file` holds, read when the bundle was loaded."""

    def __repr__(self) -> str:
        return (
            f"<Bundle {self.name}: {self.pfm_id} in {self.precision}, "
            f"tiles of {self.tile_px} px at {self.mpp:g} um/px, "
            f"{len(self.pathways)} pathways, {len(self.heads)} heads>"
        )

    @property
    def lacks(self) -> tuple[str, ...]:
        """What a reader of its scores would want to know and the bundle does not say, in sentences."""
        unjudged = f"it {NO_REFERENCE}: whether a slide is like the training slides is not judged"
        unknown = () if self.trust_file is not None else (unjudged,)
        return (*filter(None, self.validation.lacks.split("; ")), *unknown)

    @property
    def has_global_scores(self) -> bool:
        """Whether the encoder gives the read-out that is comparable across slides."""
        return "pathways_global" in self.outputs

    @property
    def widths(self) -> dict[str, int]:
        """Values per tile in each of the encoder's outputs."""
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

    @property
    def icc(self) -> str | None:
        """What is done with a slide's ICC profile, "srgb" or "none"; None where it is not stated."""
        use = self.pfm.get("icc")
        return None if use is None else str(use)

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
        return read_onnx(self.path, self.encoder_file, self.files, merged=self.merged)

    def for_engine(self, engine: str, precision: str | None) -> Bundle:
        """This bundle, with the encoder that an engine runs in a precision: a twin where there is one for them."""
        wanted = precision or self.precision
        for twin in self.twins:
            if twin.precision == wanted and engine in twin.engines:
                return replace(self, precision=twin.precision, encoder_file=twin.file)
        return self

    def twin_precisions(self, engine: str, *, by_default: bool) -> tuple[str, ...]:
        """Precisions of the twins for an engine; `by_default` leaves out those that must be asked for."""
        twins = [twin for twin in self.twins if engine in twin.engines]
        return tuple(twin.precision for twin in twins if twin.by_default or not by_default)

    def with_reference(self) -> Bundle:
        """The bundle with what its `trust_file` holds; the bundle itself where it has none.

        Raises
        ------
        BundleError
            The file breaks a rule.
        """
        if self.trust_file is None:
            return self
        data = self.read(self.trust_file)
        found = read_reference(data, mpp=self.mpp, tile_px=self.tile_px, embedding_dim=self.embedding_dim)
        return replace(self, reference=found)

    def read_head(self, head: HeadSpec) -> OnnxBytes:
        """A head as bytes; see `read`."""
        return read_onnx(self.path, head.file, self.files)


def build_bundle(folder: Path, document: dict[str, Any], sha256: str) -> Bundle:
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
        twins=read_twins(document),
        sha256=sha256,
        **{key: document[key] for key in (*same, *more)},
    )
