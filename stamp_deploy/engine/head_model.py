"""A slide-level head as a model: embeddings of one slide's tiles in, logits and attention out, checked.

What is decided from its probabilities stands in `stamp_deploy.heads`; parity needs no more than this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import BundleError

if TYPE_CHECKING:
    from ..bundle import Bundle, HeadSpec


class HeadModel:
    """One head, loaded.

    Parameters
    ----------
    threads : int
        Threads of ONNX Runtime; 0 leaves the choice to it.

    Raises
    ------
    BundleError
        The head cannot be loaded.
    """

    def __init__(self, bundle: Bundle, spec: HeadSpec, threads: int = 0) -> None:
        import onnxruntime

        self.spec = spec
        model = bundle.read_head(spec)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others need the cores meanwhile
        options.log_severity_level = 3
        if model.data:
            names, data = list(model.data), list(model.data.values())
            options.add_external_initializers_from_files_in_memory(names, data, [len(part) for part in data])
        try:
            self._session = onnxruntime.InferenceSession(model.graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BundleError(
                f"head {spec.name} cannot be loaded: {error}", path=model.path, remedy="export the bundle again"
            ) from error

    def run(self, embedding: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Logits float64 [C] and attention float32 [N] of one slide's embeddings float32 [N, D].

        Raises
        ------
        BundleError
            The head fails, answers with other shapes than its specification says, or with values that are not finite.
        """
        spec = self.spec
        try:
            inputs = {"embeddings": np.ascontiguousarray(embedding, np.float32)}
            answers = self._session.run(["logits", "attention"], inputs)
        except Exception as error:
            raise BundleError(f"head {spec.name} fails: {error}", remedy="export the bundle again") from error
        logits = np.asarray(answers[0], np.float64).reshape(-1)
        attention = np.asarray(answers[1], np.float32).reshape(-1)
        if len(attention) != len(embedding) or len(logits) not in _logit_counts(spec):
            raise BundleError(
                f"head {spec.name} answers {len(logits)} logits and {len(attention)} attentions for "
                f"{len(embedding)} tiles and {len(spec.classes)} classes",
                remedy="export the bundle again",
            )
        if not (np.isfinite(logits).all() and np.isfinite(attention).all()):
            raise BundleError(f"head {spec.name} answers with values that are not finite", remedy="export it again")
        return logits, attention

    def probabilities(self, embedding: NDArray[np.float32]) -> NDArray[np.float64]:
        """Calibrated probabilities [C] of one slide; see `to_probabilities`."""
        return to_probabilities(self.spec.kind, self.run(embedding)[0], self.spec.temperature)


def head_probabilities(bundle: Bundle, embedding: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Probabilities float32 [C] of every head over one bag of tiles, without calls or intervals; for parity."""
    return {spec.name: HeadModel(bundle, spec).probabilities(embedding).astype(np.float32) for spec in bundle.heads}


def to_probabilities(kind: str, logits: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """softmax(logits / temperature) [C]; of one binary logit (negative, positive); of survival the log hazard."""
    values = np.asarray(logits, np.float64).reshape(-1)
    if kind == "survival":
        return values
    scaled = values / temperature
    if kind == "binary" and len(scaled) == 1:
        scaled = np.array([0.0, scaled[0]])
    weights = np.exp(scaled - scaled.max())
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def _logit_counts(spec: HeadSpec) -> tuple[int, ...]:
    if spec.kind == "binary":
        return (1, 2)
    return (1,) if spec.kind == "survival" else (len(spec.classes),)
