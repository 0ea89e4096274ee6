"""What runs away from home needs few packages and none of the mathematics of training."""

from tests.cases.imports import MODULES, reached

# Competition files are found by name, so no import leads to them.
AWAY = ("pipeline.deploy.away", "pipeline.competitions")
STARTS = [name for name in MODULES if name.startswith(AWAY)]


def test_no_metrics_no_losses_hence_no_scipy():
    names = reached(STARTS)
    assert "pipeline.core.networks.scoring" in names
    for unwanted in ("pipeline.core.metrics", "pipeline.core.losses", "pipeline.core.pesg"):
        assert not {name for name in names if f"{name}.".startswith(f"{unwanted}.")}
    assert not {"scipy", "sklearn"} & {name.split(".")[0] for name in names}
