"""The house keeps its layers: every import, also those inside functions, goes downward.

Rooms of `pipeline/core` are listed from the bottom up; a file imports its own room and lower rows.
"""

import pytest

from tests.cases.imports import FILES, MODULES, ROOT, imported, name_of

LAYERS = (
    ("runtime", "losses", "metrics"),
    ("pesg",),
    ("pdsca", "coda"),
    ("config",),
    ("artifacts",),
    ("raw",),
    ("images",),
    ("networks", "folds"),
    ("runs",),
    ("training", "ensemble", "schedule"),
    ("submission",),
    ("report",),
)
ROW = {room: row for row, rooms in enumerate(LAYERS) for room in rooms}
MATHEMATICS = {
    "losses": {"torch"},
    "pesg": {"torch"},  # and the losses, whose dual it moves
    "pdsca": {"torch"},
    "coda": {"torch"},
    "metrics": {"numpy", "scipy", "sklearn"},
}
OWN = {
    "losses": ("losses",),
    "metrics": ("metrics",),
    "pesg": ("losses",),
    "pdsca": ("losses", "pesg"),
    "coda": ("losses", "pesg"),
}
# Torch is heavy to import: outside these a question such as "what is missing?" would wait for it.
TORCH_ROOMS = {"losses", "pesg", "pdsca", "coda", "networks", "training"}
TORCH_FILES = {
    "runtime/device.py",
    "runtime/torchrun.py",
    "images/batches.py",
    "runs/launch.py",
}
STAGES = {path.stem for path in (ROOT / "pipeline").glob("*.py")} - {"__init__"}


def room_of(module: str) -> str:
    """The room of a module of `pipeline.core`, "" for all others."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["pipeline", "core"] and len(parts) > 2 else ""


def part_of(module: str) -> str:
    """core, competitions, deploy, paper, demo, or the stage's own name."""
    parts = module.split(".")
    return parts[1] if parts[0] == "pipeline" and len(parts) > 1 else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_downward(path):
    me = name_of(path)
    for module in imported(path):
        part = part_of(module)
        if room_of(me):
            assert part in ("", "core"), f"core imports {module}"
            if room_of(module) not in ("", room_of(me)):
                assert ROW[room_of(module)] < ROW[room_of(me)], f"{me} imports upward: {module}"
        elif part_of(me) == "competitions" and part == "core":
            assert room_of(module) in ("config", "raw", "runtime"), f"{me} imports {module}"
        elif part_of(me) in STAGES:
            assert part in ("", "core", part_of(me)), f"the stage {me} imports {module}"
        if part in ("deploy", "paper", "demo"):
            assert part_of(me) == part, f"nobody imports {part}, but {me} does"


def test_every_room_has_a_row():
    rooms = {room_of(module) for module in MODULES} - {""}
    assert rooms == set(ROW)


def test_no_circles():
    graph = {name_of(path): set(imported(path)) & set(MODULES) for path in FILES}
    done = set()
    walking = []

    def visit(module: str) -> None:
        assert module not in walking, " -> ".join([*walking[walking.index(module) :], module])
        if module in done:
            return
        walking.append(module)
        for other in graph[module]:
            visit(other)
        walking.pop()
        done.add(module)

    for module in graph:
        visit(module)


@pytest.mark.parametrize("room", MATHEMATICS)
def test_the_mathematics_imports_nothing_of_the_project(room):
    for path in FILES:
        if room_of(name_of(path)) != room:
            continue
        for module in imported(path):
            outside = module.split(".")[0]
            allowed = outside in MATHEMATICS[room] or room_of(module) in OWN[room]
            assert allowed or outside in standard_library(), f"{path}: {module}"


def test_torch_is_imported_where_it_is_needed_only():
    for path in FILES:
        inside = path.relative_to(ROOT / "pipeline").as_posix()
        names = {module.split(".")[0] for module in imported(path)}
        if inside.startswith("competitions/"):
            assert "torch" not in names, f"{path}: a competition file imports torch"
        if inside.startswith("core/") and "torch" in names:
            place = inside.removeprefix("core/")
            room = place.split("/")[0].removesuffix(".py")
            assert room in TORCH_ROOMS or place in TORCH_FILES, path


def test_what_has_one_home_is_imported_there_only():
    homes = {
        "albumentations": {"core/images/views.py"},
        "numba": {"core/images/area_numba.py", "core/images/near_duplicates.py"},
    }
    for path in FILES:
        inside = path.relative_to(ROOT / "pipeline").as_posix()
        for package, places in homes.items():
            if any(module.split(".")[0] == package for module in imported(path)):
                assert inside in places, f"{inside} imports {package}"


def test_no_test_imports_a_test():
    for path in (ROOT / "tests").rglob("*.py"):
        for module in imported(path):
            assert not module.split(".")[-1].startswith("test_"), f"{path} imports {module}"


def standard_library() -> frozenset[str]:
    """Names of the standard library's modules."""
    import sys

    return sys.stdlib_module_names
