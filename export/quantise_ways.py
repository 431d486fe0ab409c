"""The ways to quantise an ONNX encoder to int8: which library makes the file, and which engines it is for."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from stamp_deploy.errors import UsageError
from stamp_deploy.spread import spread

CALIBRATION_BATCH = 8
STATIC_TILES = 64
"""ONNX Runtime's own calibration takes minima and maxima, which more tiles hardly move."""
SMOOTH_ALPHA = 0.95
"""How much of an outlier goes from activations to weights; NNCF's own default for products in transformers."""
Make = Callable[[Path, Path, NDArray[np.uint8]], None]


@dataclass(frozen=True)
class Way:
    """A way: `make` writes the int8 file of an fp32 one, with calibration tiles; `engines` can run it well."""

    name: str
    engines: tuple[str, ...]
    make: Make


def dynamic(encoder: Path, target: Path, tiles: NDArray[np.uint8]) -> None:
    """Weights int8, activations scaled batch by batch; no tile is needed."""
    from onnxruntime.quantization import quantize_dynamic

    with _quiet():
        quantize_dynamic(encoder, target, **_ort_settings(encoder))


def static(encoder: Path, target: Path, tiles: NDArray[np.uint8]) -> None:
    """Weights int8, activations uint8 with a zero point, scaled by minima and maxima over the tiles."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    settings = {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8, **_ort_settings(encoder)}
    with _quiet():
        quantize_static(encoder, target, Reader(tiles[spread(len(tiles), STATIC_TILES)]), **settings)


def smooth(encoder: Path, target: Path, tiles: NDArray[np.uint8]) -> None:
    """Weights and activations int8 with zero points of 0, as TensorRT wants, after SmoothQuant.

    Raises
    ------
    UsageError
        NNCF is not installed, or the weights lie outside the ONNX file, where it does not find them.
    """
    try:
        with _quiet():
            import nncf
    except ImportError as error:
        raise UsageError("NNCF is not installed", remedy="pip install 'stamp-deploy[int8]'") from error
    model = onnx.load(encoder, load_external_data=False)
    if weights_lie_outside(model):
        raise UsageError("NNCF needs the weights inside the ONNX file, and these are too large for it")
    with _quiet():
        advanced = nncf.AdvancedQuantizationParameters(
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=SMOOTH_ALPHA),
            disable_bias_correction=not has_convolutions(model),
        )
        quantised = nncf.quantize(
            model,
            nncf.Dataset([tiles[i : i + 1] for i in range(len(tiles))], lambda tile: {"tiles": tile}),
            subset_size=len(tiles),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            model_type=nncf.ModelType.TRANSFORMER,
            advanced_parameters=advanced,
        )
    onnx.save(quantised, target)


WAYS = (
    Way("dynamic", ("onnxruntime",), dynamic),
    Way("static", ("onnxruntime", "openvino"), static),
    Way("smooth", ("onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"), smooth),
)


def weights_lie_outside(model: onnx.ModelProto) -> bool:
    """Whether large tensors lie in a file beside the ONNX file, as they must from 2 GB on."""
    return any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)


def has_convolutions(model: onnx.ModelProto) -> bool:
    """Whether convolutions are most of the network, and not the cutting of a tile into patches alone.

    NNCF corrects the biases of convolutions. A transformer's biases are additions, which it does not touch: the int8
    file of ViT-S/16 is the same with and without it, but for the bias of the pathway head, and so are all its numbers
    of parity. It would take a sixth of the time.
    """
    return len([node for node in model.graph.node if node.op_type == "Conv"]) > 1


class Reader:
    """Calibration tiles, a few at a time, in the form that ONNX Runtime's quantiser wants."""

    def __init__(self, tiles: NDArray[np.uint8]) -> None:
        self._batches = iter(tiles[i : i + CALIBRATION_BATCH] for i in range(0, len(tiles), CALIBRATION_BATCH))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next batch, or None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {"tiles": batch}

    def __iter__(self) -> Reader:
        return self

    def __next__(self) -> dict[str, NDArray[np.uint8]]:
        batch = self.get_next()
        if batch is None:
            raise StopIteration
        return batch


def _ort_settings(encoder: Path) -> dict[str, Any]:
    from onnxruntime.quantization import QuantType

    return {
        "op_types_to_quantize": ["MatMul"],
        "per_channel": True,
        "reduce_range": True,
        "weight_type": QuantType.QInt8,
        "use_external_data_format": weights_lie_outside(onnx.load(encoder, load_external_data=False)),
        "extra_options": {"MatMulConstBOnly": True},
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' progress bars and advice (a preprocessing step that export has done already)."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    nncf = logging.getLogger("nncf")
    nncf.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
