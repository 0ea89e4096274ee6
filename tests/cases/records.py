"""Records of the results store."""

from dataclasses import asdict

from pipeline.paper.benchmark.trial import Trial


def record_of(trial: Trial, value: float) -> dict:
    """What a run leaves, with a last AUC of `value`."""
    name = "valid_auc" if trial.held_out else "test_auc"
    return {
        "key": trial.key,
        **asdict(trial),
        name: [0.9, value],
        "alpha": [0.1, 0.2],
        "note": "JPEG copy",
        "device": "CPU",
        "computed_in": "bfloat16",
        "trained_on": 10,
        "seconds": 1.0,
    }
