"""The gene transformer as a frozen teacher of a run: pretrained on its training sections, once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..config import TrainConfig
from ..model.checkpoint import Checkpoint, read_tensors, write_tensors
from ..neighbours import nearest_rows
from ..sections import TrainSection
from .gene_transformer import NEIGHBOURS, GeneTransformer, TeacherGuidance, pretrain


def cohort_teacher(
    sections: Sequence[TrainSection], config: TrainConfig, checkpoint: Checkpoint, device: torch.device
) -> GeneTransformer:
    """A teacher pretrained on the sections' genes; kept in the checkpoint's folder for a run that goes on.

    Each section's table ``teacher`` is filled with its embeddings.
    """
    file = checkpoint.folder / "teacher.safetensors"
    near = [nearest_rows(s.xy_um, NEIGHBOURS) for s in sections]
    if file.is_file() and read_tensors(file)[1].get("key") == checkpoint.key:
        teacher = GeneTransformer(sections[0].genes.shape[1])
        teacher.load_state_dict(read_tensors(file)[0])
        teacher = teacher.to(device).eval()
    else:
        measured = [s.measured for s in sections]
        teacher = pretrain([s.genes for s in sections], near, config.teacher_steps, config.seed, device, measured)
        if checkpoint.enabled:
            write_tensors(file, dict(teacher.state_dict()), {"key": checkpoint.key})
    for section, rows in zip(sections, near, strict=True):
        embedded = teacher.embed(torch.from_numpy(section.genes).to(device), torch.from_numpy(rows).to(device))
        section.tables["teacher"] = embedded.cpu().numpy()
    return teacher


def guide(ingredients: nn.ModuleDict, teacher: GeneTransformer, sections: Sequence[TrainSection]) -> None:
    """Hand the teacher to the ingredient that follows it."""
    guidance = ingredients["teacher"]
    assert isinstance(guidance, TeacherGuidance)
    guidance.take(teacher, [torch.from_numpy(s.tables["teacher"]) for s in sections])
