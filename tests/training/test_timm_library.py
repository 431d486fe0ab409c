"""timm beside a torchvision whose compiled operators cannot be loaded, as one built for CUDA beside a torch without."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("torchvision", reason="training needs the extra [train]")

WITHOUT_OPERATORS = """
import torch
load = torch.ops.load_library
def refuse(path):
    if "torchvision" in str(path):
        raise OSError("libcudart.so.13: cannot open shared object file")
    load(path)
torch.ops.load_library = refuse
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_torchvision_alone_cannot_be_imported_so() -> None:
    """What the module is for; where this no longer fails it can go."""
    done = run(WITHOUT_OPERATORS + "import torchvision")
    assert done.returncode == 1 and "torchvision::nms does not exist" in done.stderr


def test_a_backbone_is_built_and_no_operator_is_made_up() -> None:
    done = run(
        WITHOUT_OPERATORS
        + """
from stamp_deploy.training.model.registry import build_backbone, get_pfm
pfm = get_pfm("demo-vit")
print(build_backbone(pfm.timm_name, pfm.kwargs)(torch.zeros(2, 3, 64, 64)).shape)
from torchvision.ops import nms
try:
    nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except RuntimeError as error:
    print("refused:", error)
"""
    )
    assert done.returncode == 0, done.stderr
    shape, refused = done.stdout.splitlines()[:2]
    assert shape == "torch.Size([2, 96])" and refused.startswith("refused:")


def test_operators_that_can_be_loaded_are_left_alone() -> None:
    code = "from stamp_deploy.training.model import timm_library as t; t.import_timm(); print(len(t._declared))"
    done = run("import torch, torchvision\n" + code)
    if "does not exist" in done.stderr:
        pytest.skip("this torchvision's operators cannot be loaded")
    assert done.stdout == "0\n", done.stderr
