"""fp16 and bf16 by conversion of the ONNX graph: matrix products in the lower precision, everything else in fp32.

The result is strongly typed: every precision stands in the graph and no runtime may choose another. LayerNorm, Softmax,
activations and the residual stream stay in fp32, because there fp16 overflows or cancels: DINOv2-type models whose
whole graph was halved are publicly reported at a cosine of 0.018. Input stays uint8, outputs stay float32.

    LOW     MatMul, Gemm, Conv, Attention: all operands cast down, weights stored low, products summed by the runtime
    FOLLOW  reshapes, transposes, slices; adding a bias or scaling by a constant: the precision of their data
    FULL    everything else: fp32

Needs the package onnx (extras export, gpu and tensorrt-rtx bring it); a bundle exported in the precision does not.
"""

from __future__ import annotations

import logging
import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic import write_json_atomic
from ..bundle import ENCODER_FILE
from ..bundle.contents import OnnxBytes, read_onnx
from ..errors import BundleError, EngineError, ParityError
from ..hashing import sha256_file
from ..system import log
from .cache import cache_dir, key_of, read_entry, staged_folder
from .graph_forms import PLAIN, Form
from .graph_rewriting import rewrite

if TYPE_CHECKING:
    import onnx

    from ..bundle import Bundle

LOW_OPS = frozenset({"MatMul", "Gemm", "Conv", "Attention"})
FOLLOW_OPS = frozenset({"Reshape", "Transpose", "Slice", "Split", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
BIAS_OPS = frozenset({"Add", "Mul"})
INLINE_LIMIT_BYTES = 1_500_000_000
FP16_MAX = 65504.0
FACTS_FILE = "facts.json"
CONVERTER_VERSION = 2
"""Part of the cache key: raise it when the conversion changes."""


def encoder_in(bundle: Bundle, precision: str, form: Form = PLAIN) -> OnnxBytes:
    """The encoder in a precision and a form: the bundle's own bytes, or those of a converted copy from the cache.

    Forms are of fp32 bundles; one that was exported in another precision runs as it is.

    Raises
    ------
    EngineError
        The bundle cannot be had in that precision, or the package onnx is missing.
    """
    if _as_it_is(bundle, precision, form):
        return bundle.read_encoder()
    if bundle.precision != "fp32" or precision not in ("fp32", "fp16", "bf16"):
        raise EngineError(
            f"a bundle in {bundle.precision} cannot be run in {precision}",
            path=bundle.path,
            remedy="use a fp32 bundle, which can be run in fp16 and bf16 too",
        )
    folder = _converted_folder(bundle, precision, form)
    for _ in range(2):
        entry = read_entry(folder / FACTS_FILE)
        if entry is not None:
            try:
                return read_onnx(folder, ENCODER_FILE, entry["files"])
            except (BundleError, KeyError, TypeError):
                log.event("damaged converted encoder thrown away", level=logging.WARNING, precision=precision)
        shutil.rmtree(folder, ignore_errors=True)
        with staged_folder(folder) as staging, bundle.read_encoder().snapshot() as source:
            convert_file(source, staging / ENCODER_FILE, precision, form)
            files = {
                path.name: {"sha256": sha256_file(path), "size": path.stat().st_size} for path in staging.iterdir()
            }
            write_json_atomic(staging / FACTS_FILE, {"files": files})
    raise EngineError("the converted encoder cannot be read back from the cache", path=folder, remedy="empty the cache")


def remove_converted(bundle: Bundle, precision: str, form: Form = PLAIN) -> None:
    """Forget a converted copy, after it failed parity."""
    if not _as_it_is(bundle, precision, form):
        shutil.rmtree(_converted_folder(bundle, precision, form), ignore_errors=True)


def _as_it_is(bundle: Bundle, precision: str, form: Form) -> bool:
    return precision == bundle.precision and (bundle.precision != "fp32" or not form.changes)


def _converted_folder(bundle: Bundle, precision: str, form: Form) -> Path:
    """Where a converted copy lies; another version of the package onnx writes another copy."""
    try:
        version = metadata.version("onnx")
    except metadata.PackageNotFoundError:
        version = ""
    return cache_dir() / "models" / key_of(bundle.sha256, precision, form.key(), CONVERTER_VERSION, version)


def convert_file(source: Path, target: Path, precision: str, form: Form = PLAIN) -> None:
    """Rewrite an ONNX file into a form and convert it; large results keep their weights beside the graph.

    Raises
    ------
    EngineError
        The package onnx is missing.
    ParityError
        A weight does not fit the precision.
    """
    try:
        import onnx
    except ImportError as error:
        raise EngineError(
            f"converting the encoder to {precision} needs the package onnx",
            remedy="pip install onnx, or export the bundle in that precision",
        ) from error
    try:
        model = rewrite(onnx.load(source), form)
        if precision != "fp32":
            model = convert(model, precision, also_low=form.low)
        save(model, target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def save(model: onnx.ModelProto, target: Path) -> None:
    """Write a model, with external data where it would not fit one protobuf message."""
    import onnx

    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size > INLINE_LIMIT_BYTES:
        data = target.name + ".data"
        onnx.save(model, target, save_as_external_data=True, location=data, size_threshold=1024)
    else:
        onnx.save(model, target)


def convert(
    model: onnx.ModelProto, precision: str, *, emulate: bool = False, also_low: frozenset[str] = frozenset()
) -> onnx.ModelProto:
    """A copy of a fp32 graph with its matrix products in ``fp16`` or ``bf16``; see the module's head for the rule.

    With `emulate` the products themselves stand in fp32, between casts: operands and results are rounded as in the real
    graph and sums are fp32. That is how a precision is judged on a processor whose runtime has no kernels for it.
    Operators of `also_low` are in the lower precision, too.

    Raises
    ------
    ParityError
        A weight lies outside fp16's range of +-65504.
    """
    import onnx

    low = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[precision]
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _Converter(result, low, precision, emulate, also_low).run()
    result.producer_name = f"stamp-deploy {precision}"
    return result


class _Converter:
    """One pass in topological order. `kind` knows which tensors are float, and whether they are low."""

    def __init__(
        self, model: onnx.ModelProto, low: int, precision: str, emulate: bool, also_low: frozenset[str]
    ) -> None:
        import onnx

        self.low_ops = LOW_OPS | also_low
        self.emulate = emulate
        self.onnx, self.graph, self.low, self.precision = onnx, model.graph, low, precision
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.kind: dict[str, str] = {}  # tensor -> "low" or "full"; tensors that are not float are absent
        self.casts: dict[tuple[str, str], str] = {}
        self.nodes: list[Any] = []
        self.floats = self._float_tensors(model)

    def run(self) -> None:
        for node in self.graph.node:
            self._visit(node)
        for output in self.graph.output:  # a low output is renamed and cast back under its own name
            if self.kind.get(output.name) == "low":
                inner = f"{output.name}_{self.precision}"
                self._rename(output.name, inner)
                self.nodes.append(
                    self.onnx.helper.make_node("Cast", [inner], [output.name], to=self.onnx.TensorProto.FLOAT)
                )
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for name, tensor in self.weights.items() if name in used]
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(kept)

    def _float_tensors(self, model: onnx.ModelProto) -> set[str]:
        """Names of every fp32 tensor, by shape inference (which needs no weights: they are left out)."""
        bare = self.onnx.ModelProto()
        bare.CopyFrom(model)
        for tensor in bare.graph.initializer:
            if len(tensor.raw_data) > 1024:
                tensor.ClearField("raw_data")
                bare.graph.input.append(
                    self.onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                )
        small = [tensor for tensor in bare.graph.initializer if tensor.raw_data or not tensor.dims]
        del bare.graph.initializer[:]
        bare.graph.initializer.extend(small)
        known = self.onnx.shape_inference.infer_shapes(bare).graph
        values = [*known.value_info, *known.output, *known.input]
        floats = {v.name for v in values if v.type.tensor_type.elem_type == self.onnx.TensorProto.FLOAT}
        return floats | {n for n, t in self.weights.items() if t.data_type == self.onnx.TensorProto.FLOAT}

    def _visit(self, node: Any) -> None:
        if any(a.type in (self.onnx.AttributeProto.GRAPH, self.onnx.AttributeProto.GRAPHS) for a in node.attribute):
            raise ParityError(
                f"the graph branches ({node.op_type}) and cannot be converted to {self.precision}",
                remedy="export in fp32",
            )
        wanted = self._wanted(node)
        for index, name in enumerate(node.input):
            if name in self.floats and (node.op_type not in FOLLOW_OPS or index == 0):
                node.input[index] = self._as(name, wanted)
        for name in node.output:
            if name in self.floats:
                self.kind[name] = wanted
        if self.emulate and wanted == "low" and node.op_type in self.low_ops | BIAS_OPS:
            self._append_emulated(node)
        else:
            self.nodes.append(node)

    def _append_emulated(self, node: Any) -> None:
        """The node in fp32, with casts from and to the lower precision around it."""
        make, number = self.onnx.helper.make_node, len(self.nodes)
        for index, name in enumerate(node.input):
            up = f"{name}_up{number}"
            self.nodes.append(make("Cast", [name], [up], to=self.onnx.TensorProto.FLOAT))
            node.input[index] = up
        (name,) = node.output
        node.output[0] = f"{name}_sum"
        self.nodes += [node, make("Cast", [f"{name}_sum"], [name], to=self.low)]

    def _wanted(self, node: Any) -> str:
        data = [name for name in node.input if name in self.floats]
        if node.op_type in self.low_ops:
            return "low"
        if node.op_type in FOLLOW_OPS and data:
            return self.kind.get(data[0], "full")
        if node.op_type in BIAS_OPS and len(data) == 2:
            constant = [name in self.weights for name in data]
            if sum(constant) == 1 and self.kind.get(data[constant.index(False)]) == "low":
                return "low"
        return "full"

    def _as(self, name: str, wanted: str) -> str:
        """A float tensor's name in a precision; its Cast or converted weight is made once."""
        if self.kind.get(name, "full") == wanted:
            return name
        key = (name, wanted)
        if key in self.casts:
            return self.casts[key]
        new = f"{name}_{self.precision if wanted == 'low' else 'fp32'}"
        if name in self.weights:
            self.weights[new] = self._low_weight(self.weights[name], new)
        else:
            to = self.low if wanted == "low" else self.onnx.TensorProto.FLOAT
            self.nodes.append(self.onnx.helper.make_node("Cast", [name], [new], to=to))
        self.casts[key] = new
        return new

    def _low_weight(self, tensor: Any, name: str) -> Any:
        values = self.onnx.numpy_helper.to_array(tensor)
        if self.precision == "fp16":
            if not np.abs(values).max(initial=0.0) <= FP16_MAX:
                raise ParityError(
                    f"the weight {tensor.name} holds values beyond fp16's range of {FP16_MAX:g}", remedy="use bf16"
                )
            return self.onnx.numpy_helper.from_array(values.astype(np.float16), name)
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to nearest, ties to even
        return self.onnx.helper.make_tensor(name, self.low, values.shape, rounded.tobytes(), raw=True)

    def _rename(self, old: str, new: str) -> None:
        for node in self.nodes:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == old:
                        names[index] = new
