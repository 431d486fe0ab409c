"""Which torch `make` installs: without CUDA libraries where there is one that has a torchvision."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / ".ci" / "choose-torch"
CPU = [("torch", "2.13.0+cpu", "u"), ("torchvision", "0.28.0+cpu", "u"), ("sympy", "1", "u")]
MIXED = [("torch", "2.13.0+cpu", "u"), ("torchvision", "0.28.0", "u")]
CUDA = [("torch", "2.14.1", "u"), ("torchvision", "0.29.1", "u"), ("nvidia-cublas", "13", "u")]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = SourceFileLoader("choose_torch", str(SCRIPT))
    spec = spec_from_loader("choose_torch", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(module.os.path, "exists", lambda path: False)
    monkeypatch.setattr(module, "size_mb", lambda addresses: f"{len(addresses)} files")
    return module


@pytest.mark.parametrize(
    ("offered", "want"),
    [
        ({"": CUDA, "==2.13.0+cpu": CPU}, "torch==2.13.0+cpu torchvision==0.28.0+cpu"),
        ({"": CUDA, "==2.13.0+cpu": MIXED, "==2.14.1": CUDA}, "torch==2.13.0+cpu torchvision==0.28.0"),
        ({"": CUDA, "==2.13.0+cpu": CPU[:1], "==2.14.1": CUDA}, "torch==2.14.1 torchvision==0.29.1"),
        ({}, "torch torchvision"),
    ],
)
def test_the_pair_fits_and_its_size_is_said(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], offered: dict, want: str
) -> None:
    monkeypatch.setattr(script, "candidates", lambda: ["2.13.0+cpu", "2.14.1"])
    monkeypatch.setattr(script, "downloads", lambda version: offered.get(version, []))
    script.main()
    out, told = capsys.readouterr()
    assert out.strip() == want and "files" in told


def test_with_a_gpu_the_newest_is_taken(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(script, "downloads", lambda version: CPU if version else CUDA)
    script.main()
    assert capsys.readouterr().out.strip() == "torch==2.14.1 torchvision==0.29.1"
