"""Where a slide is tissue: the mask, faint sections, marker ink."""

from .tissue import TissueMask, TissueRule, find_tissue, find_tissue_in, mask_shape

__all__ = ["TissueMask", "TissueRule", "find_tissue", "find_tissue_in", "mask_shape"]
