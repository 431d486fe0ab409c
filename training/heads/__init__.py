"""Slide-level heads: attention over the tiles of a slide, trained on labels of slides."""
