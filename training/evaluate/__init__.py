"""A trained run against its baselines and controls on held-out sections."""

from .evaluate import EvaluateOptions, Evaluation, evaluate

__all__ = ["EvaluateOptions", "Evaluation", "evaluate"]
