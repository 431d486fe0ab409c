"""By which route a slide's tiles are read, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from .backends import Backend
from .storage.index import StorageIndex
from .storage.providers import PROVIDERS, Provider

READERS = ("openslide", "pyvips")
ROUTES = (*(provider.name for provider in PROVIDERS), *READERS)
_PROVIDED = frozenset(provider.name for provider in PROVIDERS)
_COMPILED = frozenset(provider.name for provider in PROVIDERS if provider.is_compiled)


@dataclass(frozen=True)
class Route:
    """How a slide's tiles are read, and why: by its storage tiles, under the name of the index's provider, or by
    the reader of that name."""

    name: str
    reason: str

    @property
    def by_storage(self) -> bool:
        """Whether each storage tile is decoded once, by the index of storage tiles."""
        return self.name in _PROVIDED

    @property
    def compiled(self) -> bool:
        """Whether the compiled tiler decodes them."""
        return self.name in _COMPILED


def check_route(route: str | None) -> None:
    """Refuse a forced route that does not exist.

    Raises
    ------
    UsageError
        The name is unknown.
    """
    if route is not None and route not in ROUTES:
        raise UsageError(f"route {route!r} is unknown", remedy=f"use one of {', '.join(ROUTES)}")


def choose_route(
    path: Path, backend: Backend, provider: Provider | None, storage: StorageIndex | str, forced: str | None
) -> Route:
    """By storage tiles where they are known, otherwise by the reader that opened the slide.

    Parameters
    ----------
    path : Path
    backend : Backend
    provider, storage
        See `find_storage`.
    forced : str, optional
        The route that was asked for.

    Raises
    ------
    UsageError
        The route that is asked for cannot read the file.
    """
    if forced in READERS:
        return Route(forced, "asked for")
    if provider is not None and isinstance(storage, StorageIndex):
        if forced in (None, provider.name):
            return Route(provider.name, f"{provider.what}: {_decoded(provider, storage)}")
        storage = f"it is a slide for route {provider.name}"
    reason = str(storage)
    if forced is not None:
        raise UsageError(f"route {forced} cannot read this slide: {reason}", path=path, remedy="leave the route out")
    return Route(backend.name, reason)


def _decoded(provider: Provider, storage: StorageIndex) -> str:
    if provider.is_compiled:
        return "decoded by the compiled tiler"
    return f"storage tiles of {storage.coding}, each decoded once, in a process of its own"
