"""torch -> ONNX: the encoder with its preprocessing folded in, and the slide-level heads.

The graph takes uint8 NHWC. The Cast comes before the Transpose (TensorRT-RTX refuses a Transpose on uint8),
and the normalisation is ``(x / 255 - mean) / std`` written out, which is bit-exact against the host; a folded
multiply-add is not.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from stamp_deploy.engine.interface import OUTPUTS
from stamp_deploy.errors import ParityError

from .attention import plain_attention
from .constant_folding import simplify_file

OPSET = 20
INLINE_LIMIT_BYTES = 1_500_000_000
"""Above this the weights go beside the graph, as encoder.onnx.data (protobuf ends at 2 GiB)."""


class Encoder(nn.Module):
    """uint8 tiles [N, T, T, 3] -> embedding float32 [N, D], pathways float32 [N, P], pathways_global float32 [N, P].

    The last is there where the model has a read-out of that kind (`pathway_global`, D -> P).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(1, 3, 1, 1), persistent=False)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `forward` gives."""
        return OUTPUTS if isinstance(getattr(self.model, "pathway_global", None), nn.Module) else OUTPUTS[:2]

    def forward(self, tiles: Tensor) -> tuple[Tensor, ...]:
        pixels = tiles.to(torch.float32).permute(0, 3, 1, 2)  # [N, 3, T, T]
        embedding, pathways = self.model((pixels / 255 - self.mean) / self.std)
        if len(self.outputs) == 2:
            return embedding.float(), pathways.float()
        return embedding.float(), pathways.float(), self.model.get_submodule("pathway_global")(embedding).float()


class SlideHead(nn.Module):
    """embeddings float32 [N, D] -> logits float32 [C], attention float32 [N], around a head without a batch axis."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        logits, attention = self.head(embeddings)
        return logits.float().reshape(-1), attention.float().reshape(embeddings.shape[0])


def write_encoder(encoder: Encoder, path: Path, tile_px: int) -> None:
    """Export, check and write the encoder's ONNX file.

    Raises
    ------
    ParityError
        The exporter or the checker refuses the model.
    """
    example = torch.zeros(2, tile_px, tile_px, 3, dtype=torch.uint8)
    size = sum(p.numel() * p.element_size() for p in encoder.parameters())
    batch = torch.export.Dim("batch", min=1, max=65_536)
    _export(encoder, example, path, "tiles", encoder.outputs, batch, external=size > INLINE_LIMIT_BYTES)


def write_head(head: nn.Module, path: Path, embedding_dim: int) -> None:
    """Export, check and write one slide-level head."""
    example = torch.zeros(7, embedding_dim)
    count = torch.export.Dim("tiles", min=1, max=10_000_000)
    _export(SlideHead(head).eval(), example, path, "embeddings", ("logits", "attention"), count, external=False)


def _export(
    module: nn.Module,
    example: Tensor,
    path: Path,
    input_name: str,
    output_names: tuple[str, ...],
    dim: torch.export.Dim,
    *,
    external: bool,
) -> None:
    module.eval()
    with torch.no_grad(), plain_attention(module), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            input_names=[input_name],
            output_names=list(output_names),
            dynamic_shapes=({0: dim},),
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise ParityError("the ONNX exporter gave no program")
    program.save(str(path), external_data=external)
    simplify_file(path)
    try:
        onnx.checker.check_model(str(path), full_check=True)  # full_check runs strict shape inference
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ParityError(f"the exported graph is not valid ONNX: {error}", path=path) from error
