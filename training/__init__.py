"""Pathway-aligned fine-tuning: cohorts of spatial transcriptomics, LoRA, evaluation (``stamp_deploy.training``)."""

import os

# A thread of torch's OpenMP spins while it waits for the others, and on a busy machine takes the cores that they wait
# for: a training step took up to twice the time there; on an idle machine, sleeping costs 3 %. Read when torch is
# loaded; the environment's own setting wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
