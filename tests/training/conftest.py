"""Tests here import peft by themselves."""

from __future__ import annotations

import support.beside_torchvision  # noqa: F401
