"""A bundle that a Triton Inference Server holds, as an engine: tiles go out over HTTP, scores come back.

The server must hold the models that ``stamp-deploy triton`` wrote of this very bundle: its hash stands among the
model's parameters and is asked for again behind each answer, so that a server which is given another bundle in the
middle of a slide is noticed.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from .base import BatchedEngine, shapes_of
from .interface import EngineInfo, EngineOutput
from .triton_http import TritonServer, model_path

if TYPE_CHECKING:
    from ..bundle import Bundle

IN_FLIGHT = 2
"""Requests under way at once: one is computed while the other travels."""


class TritonEngine(BatchedEngine):
    """The encoder on a Triton server; the slide-level heads stay on this machine.

    Parameters
    ----------
    bundle : Bundle
    url : str
        The server's HTTP address, as ``http://HOST:8000``.
    batch : int
        Tiles per request; at most the server's own limit are sent at once.
    precision : str, optional
        Must be the bundle's own: the repository was written in it.

    Raises
    ------
    EngineError
        The server cannot be reached, is not ready, or does not hold this bundle.
    """

    name = "triton"
    depth = IN_FLIGHT
    remembers = False  # the device behind an address can change without a sign: parity is asked for at each start

    def __init__(self, bundle: Bundle, *, url: str, batch: int, precision: str | None = None) -> None:
        if precision not in (None, bundle.precision):
            raise EngineError(
                f"the server runs this bundle in {bundle.precision}, not in {precision}", remedy="leave --precision out"
            )
        self._bundle, self._server = bundle, TritonServer(url)
        self._model = bundle.name
        try:
            about = self._about()
            config = self._config()
        except BaseException:
            self._server.close()
            raise
        info = EngineInfo(
            self.name,
            str(about.get("version", ""))[:40],
            self._server.address,
            bundle.precision,
            details={
                "model": f"{self._model} version {self._version}",
                "backend": str(config.get("backend", ""))[:40],
                "instances": _instances(config),
                "transport": "encrypted" if self._server.encrypted else "not encrypted",
            },
        )
        super().__init__(info, **shapes_of(bundle), batch=batch)
        most = int(config["max_batch_size"])
        if most < batch:
            self._chunk = most
            self.explain("", batch=f"{batch}, in requests of {most}: the server's limit")
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="triton")

    def _submit(self, piece: NDArray[np.uint8]) -> Future[EngineOutput]:
        return self._pool.submit(self._ask, np.array(piece, order="C"))  # a copy: the caller's array is used again

    def _ask(self, tiles: NDArray[np.uint8]) -> EngineOutput:
        found = self._server.infer(self._model, self._version, tiles, self._widths)
        self._config()
        return EngineOutput(*(found[name] for name in self._widths))

    def _collect(self, ticket: Future[EngineOutput]) -> EngineOutput:
        return ticket.result()

    def _release(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._server.close()

    def _about(self) -> dict[str, Any]:
        """The server's own words, once it and the model say that they are ready; takes the version of the model."""
        about = self._server.get("")
        self._server.get("/health/ready")
        versions = self._server.get(model_path(self._model)).get("versions")
        numbers = [one for one in versions if str(one).isdecimal()] if isinstance(versions, list) else []
        if not numbers:
            raise self._other("has no version that is ready")
        self._version = str(max(numbers, key=int))
        self._server.get(f"{model_path(self._model, self._version)}/ready")
        return about

    def _config(self) -> dict[str, Any]:
        """The model's configuration, if it is this bundle's.

        Raises
        ------
        EngineError
            The server holds another model under the name.
        """
        config = self._server.get(f"{model_path(self._model, self._version)}/config")
        try:
            stated = {key: value["string_value"] for key, value in config["parameters"].items()}
            found = stated["stamp_bundle_sha256"]
        except (KeyError, TypeError, AttributeError):
            raise self._other("does not say which bundle it was written from") from None
        if found != self._bundle.sha256:
            raise self._other(f"was written from bundle {str(found)[:12]}, not {self._bundle.sha256[:12]}")
        if not isinstance(config.get("max_batch_size"), int) or config["max_batch_size"] < 1:
            raise self._other("takes no batches")
        return config

    def _other(self, what: str) -> EngineError:
        return EngineError(
            f"the model {self._model} on {self._server.address} is not this bundle's: it {what}",
            remedy="write the server's repository from this bundle: stamp-deploy triton BUNDLE -o REPO --overwrite",
        )


def _instances(config: dict[str, Any]) -> str:
    """How often the server holds the model, and on what: "2 x gpu"."""
    groups = config.get("instance_group")
    if not isinstance(groups, list):
        return ""
    kinds = [(group.get("count", 1), str(group.get("kind", ""))[:20]) for group in groups if isinstance(group, dict)]
    return ", ".join(f"{count} x {kind.removeprefix('KIND_').lower()}" for count, kind in kinds)
