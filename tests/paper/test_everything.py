"""`make paper`: which programs run, on the data that are there."""

from importlib import import_module

import pytest

from pipeline.paper.benchmark.networks import NETWORKS
from pipeline.paper.everything import available_data, parser, steps
from pipeline.paper.published import TABLE_1_AND_8


@pytest.mark.parametrize(
    "arguments",
    [[], ["--epochs", "2", "--seeds", "1", "--jobs", "3", "--tune"], ["--networks", "resnet20"]],
)
def test_every_program_understands_its_arguments(arguments):
    options = parser().parse_args(arguments)
    todo = steps(options, ["cats_dogs", "cifar10"], ["ddsm"])
    assert len({tuple(step) for step in todo}) == len(todo)
    for program, *given in todo:
        module = import_module(f"pipeline.paper.{program}")
        parsed = module.parser().parse_args(given) if given else None
        for name in ("epochs", "seeds", "jobs"):
            assert not hasattr(parsed, name) or getattr(parsed, name) == getattr(options, name), (
                program
            )


def test_all_data_and_no_argument_are_all_cells_of_tables_1_and_8():
    datasets = ["cats_dogs", "cifar10", "stl10", "cifar100"]
    todo = steps(parser().parse_args([]), datasets, [])
    cells = {(float(step[6]), step[2], step[4]) for step in todo if step[0] == "table1"}
    assert cells == {(imratio, *cell) for imratio, cells in TABLE_1_AND_8.items() for cell in cells}


def test_only_what_is_there_is_run(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path))
    assert available_data() == ([], [])
    alone = [step[0] for step in steps(parser().parse_args([]), [], [])]
    assert alone == ["appendix_e", "table6", "figure1", "synthetic"]
    (tmp_path / "stl10" / "raw").mkdir(parents=True)
    (tmp_path / "ddsm").mkdir()
    (tmp_path / "ddsm" / "images.csv").touch()
    assert available_data() == (["stl10"], ["ddsm"])
    programs = [step[0] for step in steps(parser().parse_args([]), *available_data())]
    assert programs == [*alone, *["table1"] * 2 * len(NETWORKS), "figure3", "table5"]
