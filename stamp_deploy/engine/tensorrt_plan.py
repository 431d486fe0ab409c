"""TensorRT plans: built on the machine that uses them, kept in the cache, never shipped.

One builder serves TensorRT and TensorRT-RTX: the network is strongly typed, so the precision is the graph's, and the
batch is fixed, so that one CUDA graph serves every piece. A plan is keyed by GPU, driver, libraries, builder settings,
precision, batch and bundle hash; its SHA-256 is checked before it is given to the library.
"""

from __future__ import annotations

import importlib
import logging
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EngineError, UsageError
from ..system import log
from .attention_layers import LAYERS, attention_of, tell_attention
from .cache import cache_dir, key_of, read_entry, staged_folder, write_entry
from .graph_forms import PLAIN, Form, forms_of, pick_form
from .machine import gpu_facts, library_versions, package_versions
from .mixed_precision import CONVERTER_VERSION, encoder_in

if TYPE_CHECKING:
    from ..bundle import Bundle
    from .cuda import Gpu

MODULES = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
EXTRA = {"tensorrt": "gpu", "tensorrt-rtx": "tensorrt-rtx"}
WORKSPACE_BYTES = 4 << 30
BUILDER_VERSION = 3
"""Part of the key of plans: raise it when `build_plan` sets anything else."""
PLAN_FILE, FACTS_FILE = "plan.bin", "plan.json"
RTX_KNOWN = (1, 7)
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""The GPUs of TensorRT-RTX as of that version. Data-centre GPUs of 9.0 (Hopper) and 10.0 are not among them."""
_loggers: dict[str, Any] = {}


@dataclass(frozen=True)
class Plan:
    """A built engine: where it lies, its bytes, and whether parity has accepted it on this machine.

    `form` is the one in which the graph was compiled; `another_form` says whether another follows if it fails parity.
    """

    folder: Path
    data: bytes
    accepted: bool
    facts: dict[str, Any]
    form: Form
    another_form: bool


def load_module(flavour: str) -> Any:
    """The Python module of a TensorRT flavour.

    Raises
    ------
    EngineError
        It is not installed, or its libraries cannot be loaded.
    """
    reasons = []
    for name in MODULES[flavour]:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(" ".join(str(error).split()))
    raise EngineError(
        f"the engine {flavour} cannot be used here: {reasons[0][:200]}",
        remedy=f"pip install 'stamp-deploy[{EXTRA[flavour]}]'; TensorRT's own libraries come from NVIDIA",
    )


def version_of(trt: Any) -> str:
    """The library's version."""
    return str(trt.__version__)


def default_precision(bundle: Bundle) -> str:
    """fp16 for a fp32 bundle; any other bundle's own."""
    return "fp16" if bundle.precision == "fp32" else bundle.precision


def get_plan(bundle: Bundle, flavour: str, gpu: Gpu | None, *, batch: int, precision: str) -> Plan:
    """The plan from the cache, or a new one.

    Parameters
    ----------
    gpu : Gpu, optional
        The device it is for; None where there is none, which TensorRT-RTX allows: it compiles its kernels on
        first use.
    batch : int
        The fixed batch.

    Raises
    ------
    EngineError
        The library cannot build the encoder.
    """
    trt = load_module(flavour)
    form, another = pick_form(bundle, flavour, precision, forms_of(flavour, precision, batch))
    folder = plan_folder(bundle, flavour, version_of(trt), gpu, batch, precision, form)
    facts = read_entry(folder / FACTS_FILE)
    if facts is not None:
        try:
            data = (folder / PLAN_FILE).read_bytes()
        except OSError:
            data = b""
        if sha256(data).hexdigest() == facts.get("sha256"):
            return Plan(folder, data, facts.get("accepted") is True, facts, form, another)
        log.event("damaged plan thrown away", level=logging.WARNING, engine=flavour)
    shutil.rmtree(folder, ignore_errors=True)
    timing = cache_dir() / "timing" / f"{flavour}-{key_of(version_of(trt), gpu and gpu_facts(gpu))}.bin"
    with encoder_in(bundle, precision, form).snapshot() as encoder:
        data = build_plan(
            trt,
            encoder,
            tile_px=bundle.tile_px,
            batch=batch,
            timing=timing,
            tf32=precision != "fp32",
            refit=bundle.merged is not None and gpu is not None,  # without a GPU the builder refuses such plans
        )
        attention = attention_of(encoder, logger_of(trt).layers)
    facts = {
        "sha256": sha256(data).hexdigest(),
        "engine": flavour,
        "version": version_of(trt),
        "precision": precision,
        "batch": batch,
        "gpu": None if gpu is None else gpu_facts(gpu),
        "packages": package_versions(),
        "bundle": bundle.sha256,
        "attention": attention,
        "accepted": False,
    }
    tell_attention(attention, engine=flavour, precision=precision)
    with staged_folder(folder) as staging:
        (staging / PLAN_FILE).write_bytes(data)
        write_entry(staging / FACTS_FILE, facts)
    return Plan(folder, data, False, facts, form, another)


def plan_folder(
    bundle: Bundle, flavour: str, version: str, gpu: Gpu | None, batch: int, precision: str, form: Form = PLAIN
) -> Path:
    """Where such a plan lies."""
    device = None if gpu is None else [gpu_facts(gpu), library_versions()]
    settings = (
        WORKSPACE_BYTES,
        precision != "fp32",
        bundle.merged is not None,
        form.key(),
        BUILDER_VERSION,
        CONVERTER_VERSION,
    )
    made_with = (flavour, version, package_versions(), device, settings)
    return cache_dir() / "plans" / key_of(bundle.sha256, made_with, batch, precision)


def accept_plan(plan: Plan) -> None:
    """Record that parity passed on this machine."""
    write_entry(plan.folder / FACTS_FILE, {**plan.facts, "accepted": True})


def delete_plan(plan: Plan) -> None:
    """Remove a plan that failed parity or cannot be read."""
    shutil.rmtree(plan.folder, ignore_errors=True)


def build_plan(
    trt: Any,
    encoder: Path,
    *,
    tile_px: int,
    batch: int,
    timing: Path | None = None,
    tf32: bool = False,
    refit: bool = False,
) -> bytes:
    """Compile an ONNX file.

    Parameters
    ----------
    trt : module
        tensorrt or tensorrt_rtx.
    encoder : Path
        ONNX in the precision that is wanted; input ``tiles`` uint8 [N, T, T, 3].
    batch : int
        The one batch size that the plan takes.
    timing : Path, optional
        Timings of kernels, kept between builds (TensorRT only: RTX times nothing at build time).
    tf32 : bool
        Let what is fp32 in the graph use TF32. Off for a fp32 engine: 11 significant bits are not fp32.
    refit : bool
        Let the plan take other weights of the same shapes once it is loaded (`refit_plan`).

    Raises
    ------
    EngineError
        The parser or the builder refuses the graph; the library's own words are given.
    """
    logger = logger_of(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(encoder)):
        reasons = "; ".join(str(parser.get_error(i).desc()) for i in range(min(3, parser.num_errors)))
        raise _refused(trt, encoder, reasons)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the log then says what each layer does
    if not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if is_rtx(trt):  # nothing allocated while running, so that a lane's work can be recorded as a CUDA graph
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    profile = builder.create_optimization_profile()
    shape = (batch, tile_px, tile_px, 3)
    profile.set_shape("tiles", shape, shape, shape)
    config.add_optimization_profile(profile)
    cache = None
    if timing is not None and not is_rtx(trt):
        cache = config.create_timing_cache(timing.read_bytes() if timing.is_file() else b"")
        config.set_timing_cache(cache, False)
    logger.last = logger.layers = ""
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _refused(trt, encoder, logger.last or "the builder gave no plan")
    if timing is not None and cache is not None:
        _keep_timing(timing, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def refit_plan(trt: Any, engine: Any, encoder: Path) -> bool:
    """Put the weights of another ONNX file into a loaded plan of the same graph.

    False where the file has other tensors than the plan, which is then as it was, or half-way: it must not be used.
    """
    logger = logger_of(trt)
    refitter = trt.Refitter(engine, logger)
    if not trt.OnnxParserRefitter(refitter, logger).refit_from_file(str(encoder)):
        return False
    return not refitter.get_missing_weights() and bool(refitter.refit_cuda_engine())


def is_rtx(trt: Any) -> bool:
    """Whether this is TensorRT-RTX."""
    return "rtx" in str(trt.__name__)


def check_capability(trt: Any, gpu: Gpu) -> None:
    """Refuse a GPU that the library has no kernels for, before minutes go into a plan.

    Raises
    ------
    EngineError
        TensorRT-RTX up to 1.7 on another GPU than those that it names.
    """
    version = tuple(int(part) for part in version_of(trt).split(".")[:2] if part.isdigit())
    if is_rtx(trt) and version <= RTX_KNOWN and gpu.capability not in RTX_CAPABILITIES:
        raise EngineError(
            f"TensorRT-RTX {version_of(trt)} has no kernels for compute capability {gpu.capability} ({gpu.name}), only "
            f"for {', '.join(RTX_CAPABILITIES)}",
            remedy="use --engine tensorrt or onnxruntime-cuda on this GPU",
        )


def check_flavour(name: str) -> str:
    """The flavour of an engine's name.

    Raises
    ------
    UsageError
        Only TensorRT's engines are built.
    """
    if name not in MODULES:
        raise UsageError(f"the engine {name} is not built ahead of time", remedy=f"use --engine {' or '.join(MODULES)}")
    return name


def _keep_timing(path: Path, data: bytes) -> None:
    from ..atomic import write_bytes_atomic
    from ..errors import DiskError

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_bytes_atomic(path, data)
    except (OSError, DiskError):
        log.event("timing cache not kept", level=logging.WARNING)


def _refused(trt: Any, encoder: Path, reasons: str) -> EngineError:
    return EngineError(
        f"{trt.__name__} {version_of(trt)} cannot build the encoder: {reasons[:400]}",
        path=encoder,
        remedy="use --engine onnxruntime, or another --precision",
    )


def logger_of(trt: Any) -> Any:
    """The library's log into ours; one object a module, for the library keeps the first it is given.

    Its `last` is the last error, `layers` what the last build said of the layers of its plan.
    """
    if trt.__name__ not in _loggers:

        class Logger(trt.ILogger):  # type: ignore[misc]  # the base class is known at run time only
            last = ""
            layers = ""

            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.ERROR:
                    self.last = message
                elif message.startswith(LAYERS):
                    self.layers = message
                level = logging.WARNING if severity <= trt.ILogger.ERROR else logging.DEBUG
                log.event("tensorrt", level=level, message=message)

        _loggers[trt.__name__] = Logger()
    return _loggers[trt.__name__]
