"""Pathway-aligned fine-tuning: cohorts of spatial transcriptomics, LoRA, evaluation (``stamp_deploy.training``)."""
