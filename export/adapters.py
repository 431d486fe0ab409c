"""Several runs on one foundation model become one bundle: the weights that they share once, and what each changes.

Each run is exported by itself, with all of its parity checks. Then every tensor of its encoder is compared with that of
the model before it was adapted: what is the same is stored once for all; what differs by a matrix of low rank (LoRA,
folded in) is stored as two thin factors; anything else is the adapter's own. The factors come from a singular value
decomposition of the difference, so that it does not matter how a run was trained, and what is put together again is
held to the run's golden outputs.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from stamp_deploy.atomic import DONE_MARKER, check_output, staged_directory
from stamp_deploy.bundle import BUNDLE_FILE, ENCODER_FILE, Bundle, load_adapters, write_adapters_json
from stamp_deploy.bundle.adapter_weights import PARTS_KEY
from stamp_deploy.bundle.adapters import STATED_ONCE, WEIGHTS_KEY, merged_location
from stamp_deploy.bundle.rules import NAME
from stamp_deploy.engine import open_engine
from stamp_deploy.engine.golden import check_engine
from stamp_deploy.errors import UsageError

from .export import export_run
from .graph.to_onnx import Encoder, write_encoder
from .source import run_facts

BASE_FILE = "base.data"
WEIGHTS_FILE = "adapter.safetensors"
SAME_KEYS = ("pfm_id", "timm_name", "timm_kwargs", "tile_px", "mpp", "mean", "std")
"""What runs on one foundation model agree in."""
INLINE_BYTES = 1024
"""Smaller tensors stay in the graph."""
ROUNDING = 2.0**-22
"""What folding an adapter in rounds away, as a share of the largest weight: the factors leave out no more than that."""
MAX_OWN_SHARE = 0.5
"""An adapter that changes more of its weights than this, by more than low rank, shares no backbone."""
CHECK_BATCH = 16
Factors = tuple[NDArray[np.float32], NDArray[np.float32]]
"""a [m, r] and b [r, n]."""


@dataclass
class Shared:
    """The file that adapters share, while it grows: tensors by name, and where each begins."""

    values: dict[str, NDArray[Any]]
    start: dict[str, int] = field(default_factory=dict)
    size: int = 0

    def place(self, name: str) -> int:
        """The first byte of a tensor; it is taken in where it is not yet."""
        if name not in self.start:
            self.start[name] = self.size
            self.size += self.values[name].nbytes
        return self.start[name]

    def write(self, path: Path) -> None:
        """Write the tensors that were taken in, in order."""
        with path.open("wb") as file:
            for name in self.start:
                file.write(np.ascontiguousarray(self.values[name]).tobytes())


@dataclass
class _Own:
    """What one adapter changes, while it grows: the tensors of its file and their places in the file in memory."""

    arrays: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    listed: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0
    own_bytes: int = 0

    def add(self, values: NDArray[np.float32], factors: Factors | None, start: int) -> int:
        """Take a changed tensor in, whose base begins at `start`; gives its first byte in the file in memory."""
        number, place = len(self.listed), self.size
        entry: dict[str, Any] = {"shape": list(values.shape)}
        if factors is None:
            self.arrays[f"{number}.full"] = values
            self.own_bytes += values.nbytes
        else:
            self.arrays[f"{number}.a"], self.arrays[f"{number}.b"] = factors
            entry["start"] = start
        self.listed.append(entry)
        self.size += values.nbytes
        return place

    def write(self, path: Path) -> None:
        """Write the adapter's file."""
        from safetensors.numpy import save_file

        arrays = {name: np.ascontiguousarray(values, np.float32) for name, values in self.arrays.items()}
        save_file(arrays, path, metadata={PARTS_KEY: json.dumps({"tensors": self.listed})})


def export_adapters(
    runs: Sequence[Path],
    out: Path,
    *,
    names: Sequence[str] = (),
    tiles: Path | None = None,
    name: str | None = None,
    overwrite: bool = False,
) -> dict[str, Bundle]:
    """Export runs that share a foundation model as one bundle with an adapter each, in fp32.

    Parameters
    ----------
    runs : sequence of Path
        Folders that ``stamp-deploy train`` wrote, each with its own heads and evaluation.
    names : sequence of str
        What the adapters are called; by default as the runs' folders.
    tiles : Path, optional
        Tissue tiles for parity; by default each run's own cohort.

    Raises
    ------
    UsageError
        The runs do not share a foundation model, or two have one name.
    ParityError
        An adapter does not reproduce its run; nothing is left behind.
    """
    names = tuple(names) or tuple(run.resolve().name for run in runs)
    _check(runs, names)
    check_output(out, overwrite=overwrite)
    with tempfile.TemporaryDirectory(prefix="stamp-adapters-", dir=out.resolve().parent) as scratch:
        whole = {}
        for run, adapter in zip(runs, names, strict=True):
            whole[adapter] = export_run(run, Path(scratch, adapter), tiles=tiles, name=f"{name or out.name}-{adapter}")
        shared = Shared(_base_tensors(runs[0], Path(scratch, "base"), whole[names[0]].tile_px))
        with staged_directory(out, overwrite=overwrite) as staging:
            entries = {adapter: take_over(adapter, bundle, shared, staging) for adapter, bundle in whole.items()}
            shared.write(staging / BASE_FILE)
            made = write_adapters_json(staging, name or out.name, entries)
            for bundle in made.values():
                engine = open_engine(bundle, "onnxruntime", batch=CHECK_BATCH)
                try:
                    check_engine(bundle, engine).raise_if_failed()
                finally:
                    engine.close()
    return load_adapters(out)


def low_rank(values: NDArray[np.float32], base: NDArray[np.float32]) -> Factors | None:
    """Thin factors a [m, r] and b [r, n] with ``base + a @ b`` equal to `values` but for rounding.

    None where the difference is of no rank that would save anything.
    """
    if values.ndim != 2 or values.shape != base.shape:
        return None
    difference = values.astype(np.float64) - base
    left, strength, right = np.linalg.svd(difference, full_matrices=False)
    limit = ROUNDING * float(max(np.abs(values).max(), np.abs(base).max()))
    rank = int((strength > limit * np.sqrt(max(values.shape))).sum())
    if rank == 0 or rank * sum(values.shape) * 2 > values.size:
        return None
    root = np.sqrt(strength[:rank])
    a, b = (left[:, :rank] * root).astype(np.float32), (root[:, None] * right[:rank]).astype(np.float32)
    return (a, b) if np.abs(base + a @ b - values).max() <= 4 * limit else None


def _check(runs: Sequence[Path], names: Sequence[str]) -> None:
    """Names that can be, and one foundation model.

    Raises
    ------
    UsageError
        See above.
    """
    if len(names) != len(runs) or len({name.lower() for name in names}) != len(names):
        raise UsageError("each run needs an adapter's name of its own", remedy="name them: --adapters lung,breast")
    for name in names:
        if not NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be an adapter's name", remedy="use letters, digits, dot, dash and underscore"
            )
    first = run_facts(runs[0])
    for run in runs[1:]:
        facts = run_facts(run)
        other = [key for key in SAME_KEYS if facts.get(key) != first.get(key)]
        if other:
            raise UsageError(
                f"the runs do not share a foundation model: {', '.join(other)} differ",
                path=run,
                remedy="export it as a bundle of its own",
            )


def _base_tensors(run: Path, folder: Path, tile_px: int) -> dict[str, NDArray[Any]]:
    """The encoder's tensors before the model was adapted, by their names in the graph."""
    from stamp_deploy.training.model import load_run, merge_lora

    model, info = load_run(run)
    with model.without_adapter():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # what is folded in is then nothing
                parameter.data = parameter.data * 0
        plain = merge_lora(model)
    folder.mkdir()
    write_encoder(Encoder(plain, info.mean, info.std), folder / ENCODER_FILE, tile_px)
    graph = onnx.load(folder / ENCODER_FILE).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def take_over(adapter: str, bundle: Bundle, shared: Shared, staging: Path) -> dict[str, Any]:
    """One exported bundle as an adapter: its files in a folder of its own, its encoder beside the shared weights."""
    own, folder = _Own(), staging / adapter
    folder.mkdir()
    model = onnx.load(bundle.encoder)
    total = 0
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.nbytes < INLINE_BYTES:
            continue
        total += values.nbytes
        base = shared.values.get(tensor.name)
        if base is not None and base.dtype == values.dtype and np.array_equal(base, values):
            location, start = BASE_FILE, shared.place(tensor.name)
        elif values.dtype == np.float32:
            factors = None if base is None else low_rank(values, base)
            begins = 0 if factors is None else shared.place(tensor.name)
            location, start = merged_location(adapter), own.add(values, factors, begins)
        else:
            continue
        _point(tensor, location, start, values.nbytes)
    if own.own_bytes > MAX_OWN_SHARE * total:
        raise UsageError(
            f"the adapter {adapter!r} changes {own.own_bytes / total:.0%} of its weights: it shares no backbone with "
            f"the first run",
            remedy="export it as a bundle of its own",
        )
    (staging / f"{adapter}.onnx").write_bytes(model.SerializeToString())
    own.write(folder / WEIGHTS_FILE)
    for path in sorted(bundle.path.rglob("*")):
        kept = path.relative_to(bundle.path)
        if path.is_file() and path.name not in (BUNDLE_FILE, DONE_MARKER) and not path.name.startswith(ENCODER_FILE):
            (folder / kept).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / kept)
    return _entry(adapter, bundle)


def _entry(adapter: str, bundle: Bundle) -> dict[str, Any]:
    """The adapter's part of bundle.json: the bundle's own, with its files where they lie now."""
    document: dict[str, Any] = json.loads((bundle.path / BUNDLE_FILE).read_text(encoding="utf-8"))
    for key in STATED_ONCE:
        del document[key]
    document["encoder"] = f"{adapter}.onnx"
    document["golden"] = f"{adapter}/{document['golden']}"
    document["trust"] = None if document["trust"] is None else f"{adapter}/{document['trust']}"
    for head in document["heads"]:
        head["file"] = f"{adapter}/{head['file']}"
    document[WEIGHTS_KEY] = {"file": f"{adapter}/{WEIGHTS_FILE}", "base": BASE_FILE}
    return document


def _point(tensor: onnx.TensorProto, location: str, start: int, size: int) -> None:
    """Let a tensor of the graph lie in a file."""
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", start), ("length", size)):
        tensor.external_data.add(key=key, value=str(value))
