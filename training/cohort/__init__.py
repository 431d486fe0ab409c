"""A training cohort: spots of spatial transcriptomics with their pathway scores and their tiles."""

from .store import Cohort, Sample, SampleFacts, load_cohort

__all__ = ["Cohort", "Sample", "SampleFacts", "load_cohort"]
