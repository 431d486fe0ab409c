"""Every hostile bundle is refused with a BundleError, and before any runtime has parsed a model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

from hostile import ATTACKS, reseal
from support.bundle_factory import make_bundle

from stamp_deploy.bundle import load_bundle
from stamp_deploy.errors import BundleError


@pytest.mark.parametrize("name", ATTACKS)
def test_refused_before_anything_is_parsed(name, tmp_path, monkeypatch):
    builder, message = ATTACKS[name]
    folder = make_bundle(tmp_path / "bundle")
    builder(folder)
    import onnxruntime

    def parse(*args, **kwargs):
        raise AssertionError("a runtime was asked to parse a hostile bundle")

    monkeypatch.setattr(onnxruntime, "InferenceSession", parse)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_a_resealed_bundle_is_otherwise_good(tmp_path):
    """The resealed attacks fail for their own reason, not because resealing breaks the bundle."""
    folder = make_bundle(tmp_path / "bundle")
    reseal(folder)
    load_bundle(folder)
