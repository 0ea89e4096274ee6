"""Modules that are named in strings and in text, where no import would fail: they exist."""

import ast
import re

import pytest

from tests.cases.imports import FILES, MODULES, ROOT

DOTTED = re.compile(r"\bpipeline(?:\.[a-z_]\w*)+")
PATH = re.compile(r"\bpipeline(?:/\w+)+\.py\b")
TEXTS = [ROOT / "Makefile", *ROOT.glob("*.md"), *(ROOT / "pipeline").rglob("*.md")]


def strings(text: str) -> list[str]:
    """The string constants of a program, docstrings and the parts of f-strings among them."""
    constants = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    return [node.value for node in constants if isinstance(node.value, str)]


def assert_modules_exist(text: str) -> None:
    """Every pipeline.a.b is a module; every pipeline/a/b.py is a file."""
    for name in DOTTED.findall(text):
        assert name in MODULES, name
    for path in PATH.findall(text):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_in_strings(path):
    for text in strings(path.read_text(encoding="utf-8")):
        assert_modules_exist(text)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_in_texts(path):
    assert_modules_exist(path.read_text(encoding="utf-8"))


def test_a_module_that_does_not_exist_is_found():
    for text in ("python -m pipeline.paper.made", "see pipeline/core/tables.py"):
        with pytest.raises(AssertionError):
            assert_modules_exist(text)
