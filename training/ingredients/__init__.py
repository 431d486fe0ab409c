"""Ingredients of the recipes: what each adds to the model, the data and the loop that all of them share."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from stamp_deploy.errors import UsageError

from ..config import TrainConfig
from ..model import StampModel
from ..model.checkpoint import read_tensors, write_tensors
from ..model.registry import get_pfm
from ..model.st_token import token_width
from ..model.stamp_model import timm_module
from .gene_alignment import GeneAlignment
from .gene_transformer import TeacherGuidance
from .ingredient import Ingredient, Matching, Seen
from .niche_alignment import NicheAlignment
from .patch_regression import PatchRegression
from .self_distillation import SelfDistillation

FILE = "ingredients.safetensors"
"""In the run's folder: what ingredients keep of themselves, for the evaluation."""


def make_ingredients(config: TrainConfig, model: StampModel, genes: int) -> nn.ModuleDict:
    """The ingredients that the config's weights ask for, by name.

    Parameters
    ----------
    genes : int
        G, how many genes they learn from.
    """
    found: dict[str, Ingredient] = {}
    if config.aligns_genes:
        found["gene_alignment"] = GeneAlignment(model.dim, model.frozen_dim, genes, config)
    if config.aligns_niches:
        assert model.fields is not None
        order = sorted(range(model.fields_count), key=lambda i: model.fields.sides[i])  # type: ignore[union-attr]
        found["niche_alignment"] = NicheAlignment(model.dim // model.fields_count, order, genes, config)
    if config.w_teacher > 0:
        found["teacher"] = TeacherGuidance(model.dim, genes)
    if config.w_distillation > 0:
        found["distillation"] = SelfDistillation(model)
    if config.w_patches > 0:
        width = token_width(timm_module(model.backbone), model.embed)
        found["patches"] = PatchRegression(width, model.pathway.out_features, model.prefix_tokens)
    return nn.ModuleDict(found)


def check_ingredients(config: TrainConfig) -> None:
    """Refuse ingredients that cannot work with the rest of the config.

    Raises
    ------
    UsageError
        With the setting to change.
    """
    if (config.aligns_genes or config.aligns_niches or config.w_teacher > 0) and config.field_steps == "one":
        raise UsageError(
            'ingredients read the joined embedding, and field_steps = "one" has none',
            remedy='set field_steps = "joined", or the weights of the ingredients to 0',
        )
    if config.aligns_niches and len(config.fields_um) < 2:
        raise UsageError(
            "spot and niche need two fields of view, a small one and a large one",
            remedy="such as fields_um = [112, 224]",
        )
    if config.adds_token:
        _check_tokens(config)


def _check_tokens(config: TrainConfig) -> None:
    embed = get_pfm(config.pfm).embed
    if (config.st_token or config.w_patches > 0) and embed == "pool":
        raise UsageError(
            f"{config.pfm} gives no tokens: an ST token and patches need a vision transformer of the registry",
            remedy="name another pfm, or set st_token = false and w_patches = 0",
        )
    wrong = {
        "fields_um": bool(config.fields_um) and "several fields of view (fields_um)",
        "cache_views": config.cache_views > 0 and "kept views (cache_views)",
        "shift_um": config.w_patches > 0 and config.shift_um > 0 and "moved crops (shift_um)",
    }
    for key, what in wrong.items():
        if what:
            raise UsageError(
                f"an ST token, self-distillation and patches do not go with {what}",
                remedy=f"leave {key} out, or set st_token = false, w_distillation = 0 and w_patches = 0",
            )


def save_ingredients(folder: Path, ingredients: nn.ModuleDict) -> None:
    """Write what they keep; no file where that is nothing."""
    tensors = {
        f"{name}.{key}": value
        for name, part in ingredients.items()
        if isinstance(part, Ingredient)
        for key, value in part.kept().items()
    }
    if tensors:
        write_tensors(folder / FILE, tensors)


def load_matching(folder: Path, config: TrainConfig, model: StampModel, genes: int) -> dict[str, Matching]:
    """The matching ingredients of a finished run, in evaluation mode."""
    if not (folder / FILE).is_file():
        return {}
    tensors, _ = read_tensors(folder / FILE)
    found: dict[str, Matching] = {}
    for name, part in make_ingredients(config, model, genes).items():
        if isinstance(part, Matching):
            own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            part.load_state_dict(own)
            found[name] = part.eval()
    return found


__all__ = [
    "FILE",
    "Ingredient",
    "Matching",
    "Seen",
    "check_ingredients",
    "load_matching",
    "make_ingredients",
    "save_ingredients",
]
