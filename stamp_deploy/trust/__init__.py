"""Does this slide look like what the model knows? Engine-free: numpy only."""

from .verdict import LEFT_OUT_FLAGS, SlideTrust, TileFlag, Verdict

__all__ = ["LEFT_OUT_FLAGS", "SlideTrust", "TileFlag", "Verdict"]
