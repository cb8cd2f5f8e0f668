"""Two networks of one architecture as one module: a teacher and a student that see the same images."""

from typing import Any

import torch
from torch import nn


class Pair(nn.Module):
    """Images (B, 3, H, W) -> the sum of both networks' logits, (B, C), whose softmax is p_T p_S / sum: what both agree on.

    While training, a dict of `teacher`, `student` and `logits`, their sum.
    """

    def __init__(self, teacher: nn.Module, student: nn.Module):
        super().__init__()
        self.teacher, self.student = teacher, student

    def forward(self, images: torch.Tensor) -> Any:
        teacher, student = self.teacher(images), self.student(images)
        if self.training:
            return {"teacher": teacher, "student": student, "logits": teacher + student}
        return teacher + student
