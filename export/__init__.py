"""From a training run to a bundle: merge the adapter, compile to ONNX, prove parity, write the folder.

``export_run`` is the Python entry point; the command is ``stamp-deploy export``. Installs as
``stamp_deploy.export`` and is the only place besides training that imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .export import export_run

__all__ = ["export_run"]


def __getattr__(name: str) -> Any:
    if name == "export_run":
        from .export import export_run

        return export_run
    raise AttributeError(name)
