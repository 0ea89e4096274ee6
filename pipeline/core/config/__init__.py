"""A competition's values: everything that a file in `pipeline/competitions/` needs, in one import.

    from pipeline.core.config import Blend, Finetune, Pretrain, Resize, Run, Submission, Task

Frozen dataclasses, checked when they are made. What such a file holds: `config/task.py`.
"""

from pipeline.core.config.run import (
    Augment,
    Auxiliary,
    Finetune,
    Metadata,
    Pretrain,
    Run,
    seeded,
)
from pipeline.core.config.task import OFFICIAL, Blend, Resize, Submission, Task, Uncertain

__all__ = [
    "OFFICIAL",
    "Augment",
    "Auxiliary",
    "Blend",
    "Finetune",
    "Metadata",
    "Pretrain",
    "Resize",
    "Run",
    "Submission",
    "Task",
    "Uncertain",
    "seeded",
]
