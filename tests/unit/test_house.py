"""The source has no circular imports, also inside a folder; import-linter checks the layers (`make lint`)."""

from __future__ import annotations

import importlib.util

import pytest


@pytest.fixture(scope="module")
def figures(repository):
    spec = importlib.util.spec_from_file_location("house_figures", repository / "scripts" / "house_figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_circular_imports(figures):
    assert figures.circles(figures.imports(figures.modules())) == []


def test_circular_import_is_detected(figures):
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}
    assert figures.circles(graph) == [["a", "b", "c"]]
