"""One name has one meaning: no two modules define a function or a class of the same name.

Left out are the names that every stage or competition file has, and the two notebooks, which cannot
share code: each is one file where nothing else is installed.
"""

import ast
from collections import defaultdict

from tests.cases.imports import FILES, ROOT

# What run_stage and a user's `--help` find in every program, and the demo in each of its writers.
EVERYWHERE = {"main", "parser", "write"}
ON_THEIR_OWN = ("pipeline/competitions/", "pipeline/deploy/away/notebook_")


def test_a_function_or_class_is_defined_once():
    homes = defaultdict(list)
    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith("pipeline/") or name.startswith(ON_THEIR_OWN):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name not in EVERYWHERE:
                homes[node.name].append(name)
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}
