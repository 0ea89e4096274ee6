"""Does training in the faster precision end in the same AUC? Short trainings in float32 and in
bfloat16.

    python -m tests.bench.training_precision melanoma/resnet10t_96/fold0 [--seeds 3]

Reads what `pretrain` and `finetune` read and runs both stages, in a temporary folder, for every
seed and precision. Prints each training's last validation AUC, then mean ± standard deviation over
seeds, and the paired differences.
"""

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pipeline.core.artifacts.training_log import read_log
from pipeline.core.config.competition import load_competition
from pipeline.core.config.target_path import parse_target
from pipeline.core.runs.job import Job
from pipeline.core.runtime.device import precision
from pipeline.finetune import finetune
from pipeline.pretrain import pretrain

EXACT = "fp32"
FAST = "bf16"


def trained(job: Job, folder: Path) -> dict[str, float]:
    """Both stages from nothing, kept in `folder`; the validation AUC at the last epoch of each."""
    os.environ["MODELS"] = str(folder)
    pretrain(job)
    finetune(job)
    lines = read_log(job.folder / "log.jsonl", "pretrain")
    return {line["phase"]: line["valid_auc"]["mean"] for line in lines if "valid_auc" in line}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", help="competition/run/fold<k>")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    target = parse_target(args.target)
    competition = load_competition(target.competition)
    if precision("auto") == torch.float32:
        raise SystemExit(
            "this machine has no faster precision than float32: there is nothing to compare"
        )
    aucs: dict[tuple[str, str], list[float]] = {}
    for seed in range(args.seeds):
        for kind in (EXACT, FAST):
            run = replace(competition.run(target.run), seed=seed, precision=kind)
            with tempfile.TemporaryDirectory() as folder:
                job = Job(competition, run, target.fold)
                for phase, auc in trained(job, Path(folder)).items():
                    aucs.setdefault((phase, kind), []).append(auc)
                    print(f"seed {seed} {kind} {phase}: AUC {auc:.4f}", flush=True)
    for phase in ("pretrained", "finetuned"):
        exact = np.array(aucs[phase, EXACT])
        fast = np.array(aucs[phase, FAST])
        difference = fast - exact
        print(
            f"{phase}, {args.seeds} seeds: {EXACT} {exact.mean():.4f} ± {exact.std(ddof=1):.4f}, "
            f"{FAST} {fast.mean():.4f} ± {fast.std(ddof=1):.4f}, "
            f"{FAST} - {EXACT} {difference.mean():+.4f} ± {difference.std(ddof=1):.4f}"
        )


if __name__ == "__main__":
    main()
