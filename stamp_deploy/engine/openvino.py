"""OpenVINO on the CPU, in fp32, or in bf16 where the chip multiplies bf16 (AVX-512 BF16 or AMX)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..system.processor import usable_cores
from .base import BatchedEngine, shapes_of
from .interface import EngineInfo, EngineOutput
from .openvino_streams import Streams, fastest_count, remembered_count, stream_counts

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..bundle.contents import OnnxBytes


class OpenVinoEngine(BatchedEngine):
    """OpenVINO's CPU plugin.

    A fp32 bundle runs in fp32, or in bf16 where the chip has it. Chips with AVX-512 BF16 and without AMX can be slower
    in bf16 than in fp32, so `load_engine` measures both and fp32 is the default here. Other bundles run in their own
    precision. The batch axis is free.
    """

    name = "openvino"

    def __init__(self, bundle: Bundle, *, batch: int, threads: int = 0, precision: str | None = None) -> None:
        try:
            import openvino
        except ImportError as error:
            raise EngineError(
                "the engine openvino is not installed", remedy="pip install 'stamp-deploy[openvino]'"
            ) from error

        core = openvino.Core()
        chip = core.get_property("CPU", "FULL_DEVICE_NAME")
        choices = precisions(bundle.precision, has_bf16(core))
        wanted = precision or choices[0]
        if wanted not in choices:
            raise EngineError(
                f"OpenVINO runs this {bundle.precision} bundle in {' or '.join(choices)} on this processor, "
                f"not in {wanted}",
                remedy="leave --precision out",
            )
        threads = threads or usable_cores()
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "bf16" if wanted == "bf16" and has_bf16(core) else "f32",
        }
        try:
            network = _read(core, bundle.read_encoder())
            self._streams: Streams | None = self._open_streams(core, network, settings, bundle, wanted, batch)
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO {openvino.__version__} cannot load the encoder: {str(error).strip().splitlines()[-1][:300]}",
                path=bundle.encoder,
                remedy="use --engine onnxruntime",
            ) from error
        info = EngineInfo(
            self.name,
            str(openvino.__version__).split("-")[0],
            "cpu",
            wanted,
            details={"threads": str(threads), "streams": str(self._streams.count), "processor": str(chip)},
        )
        super().__init__(info, **shapes_of(bundle), batch=batch)
        self.compiled = f"{self._streams.count} streams"  # parity is asked for each number

    @staticmethod
    def _open_streams(
        core: Any, network: Any, settings: dict[str, Any], bundle: Bundle, precision: str, batch: int
    ) -> Streams:
        """The network in as many streams as are fastest here."""
        threads, opened = settings["INFERENCE_NUM_THREADS"], dict[int, Streams]()
        counts = stream_counts(batch, threads)

        def measure() -> int:
            noise = np.random.default_rng(0).integers(0, 256, (batch, bundle.tile_px, bundle.tile_px, 3), np.uint8)
            opened.update({count: Streams(core, network, settings, count) for count in counts})
            return fastest_count({count: partial(opened[count].run, outputs=()) for count in counts}, noise)

        count = remembered_count(bundle, precision, batch, threads, counts, measure)
        return opened.get(count) or Streams(core, network, settings, count)

    def _submit(self, piece: NDArray[np.uint8]) -> EngineOutput:
        assert self._streams is not None
        try:
            return EngineOutput(*self._streams.run(piece, tuple(self._widths)))
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO fails: {str(error).strip().splitlines()[-1][:300]}", remedy="use --engine onnxruntime"
            ) from error

    def _collect(self, ticket: EngineOutput) -> EngineOutput:
        return ticket

    def _release(self) -> None:
        self._streams = None


def has_bf16(core: Any) -> bool:
    """Whether OpenVINO multiplies bf16 in hardware on this processor."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def precisions(of_bundle: str, bf16: bool) -> tuple[str, ...]:
    """What OpenVINO can run a bundle in, its default first."""
    if of_bundle == "fp32":
        return ("fp32", "bf16") if bf16 else ("fp32",)
    return (of_bundle,)


def offered(of_bundle: str) -> tuple[str | None, ...]:
    """`precisions` of this machine; the engine's own word where OpenVINO is not installed."""
    try:
        import openvino
    except ImportError:
        return (None,)
    return precisions(of_bundle, has_bf16(openvino.Core()))


def _read(core: Any, model: OnnxBytes) -> Any:
    """The network from the bytes that were hashed; tensors outside the graph are read from a private copy."""
    if not model.data:
        return core.read_model(model.graph)
    with model.snapshot() as path:
        return core.read_model(str(path))
