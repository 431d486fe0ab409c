"""Does this slide look like what the model knows? Engine-free: numpy only."""

from .verdict import LEFT_OUT_FLAGS, SlideTrust, TileFlag, Verdict, besides_verdict

__all__ = ["LEFT_OUT_FLAGS", "SlideTrust", "TileFlag", "Verdict", "besides_verdict"]
