"""Recipes: settings that go together, each a TOML file here. A config overrides what it names."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from stamp_deploy.errors import UsageError

from ..toml_settings import nearest, read_toml

INGREDIENTS = ("w_", "gene_", "genes_", "n_genes", "st_token", "teacher_", "head_final")
"""How settings of losses and of what they learn from begin; the others are of backbone, data and loop."""


def recipe_names() -> tuple[str, ...]:
    """The recipes that there are."""
    files = (file.name for file in resources.files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml")))


def read_recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe.

    Raises
    ------
    UsageError
        There is none of that name.
    """
    if name not in recipe_names():
        raise UsageError(f"there is no recipe {name}", remedy=nearest(name, recipe_names(), "recipes"))
    return read_toml(Path(str(resources.files(__package__))) / f"{name}.toml", "install stamp-deploy again")


def ingredients_of(name: str) -> dict[str, Any]:
    """What a recipe says of losses and ingredients, to be laid over a config of any backbone and rates."""
    return {key: value for key, value in read_recipe(name).items() if key.startswith(INGREDIENTS)}
