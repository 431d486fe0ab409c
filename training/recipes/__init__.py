"""Recipes: settings that go together, each a TOML file here. A config overrides what it names."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from stamp_deploy.errors import UsageError

from ..toml_settings import nearest, read_toml


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
