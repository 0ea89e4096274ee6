"""The project's modules and what each of them imports, read from their sources."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "pipeline").rglob("*.py"))


def name_of(path: Path) -> str:
    """pipeline/core/config/run.py -> pipeline.core.config.run."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, at any depth of nesting."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def reached(start: Iterable[str]) -> set[str]:
    """Every dotted name that is imported when these modules are, the packages above them
    included."""
    names = set()
    todo = list(start)
    while todo:
        name = todo.pop()
        if name in names:
            continue
        names.add(name)
        if "." in name:
            todo.append(name.rpartition(".")[0])
        if name in MODULES:
            todo += imported(MODULES[name])
    return names
