"""Sampled stacks as a tree."""

from __future__ import annotations

import pytest

from nbserve.trace import stacks
from nbserve.trace.model import StackNode

SAMPLES = [
    {"frames": [["run", "cell 1", 3], ["scale", "cell 1", 9]], "ms": 4.0},
    {"frames": [["run", "cell 1", 3], ["scale", "cell 1", 10]], "ms": 6.0},
    {"frames": [["run", "cell 1", 4]], "ms": 1.5},
    {"frames": [["main", "app.py", 1]], "ms": 0.5},
]


def path(root: StackNode, *names: str) -> StackNode:
    for name in names:
        (root,) = (child for child in root.children if child.name == name)
    return root


def test_times_add_up_along_the_stack() -> None:
    root = stacks.tree(SAMPLES)
    assert (root.name, root.total_ms, root.self_ms) == ("all", 12.0, 0.0)
    run = path(root, "run")
    assert (run.total_ms, run.self_ms, run.file) == (11.5, 1.5, "cell 1")
    assert path(run, "scale").total_ms == 10.0


def test_the_hottest_line_stands_for_a_function() -> None:
    root = stacks.tree(SAMPLES)
    assert path(root, "run", "scale").line == 10
    assert path(root, "run").line == 3


def test_children_come_by_time() -> None:
    assert [child.name for child in stacks.tree(reversed(SAMPLES)).children] == ["run", "main"]


def test_functions_of_one_name_in_two_files_are_two() -> None:
    samples = [{"frames": [["f", "a.py", 1]], "ms": 1}, {"frames": [["f", "b.py", 1]], "ms": 1}]
    assert {child.file for child in stacks.tree(samples).children} == {"a.py", "b.py"}


def test_recursion_is_as_deep_as_it_was() -> None:
    root = stacks.tree([{"frames": [["f", "a.py", 1]] * 3, "ms": 2.0}])
    assert path(root, "f", "f", "f").self_ms == 2.0


def test_no_samples_are_an_empty_tree() -> None:
    assert stacks.tree([]) == StackNode("all", "", 0, 0.0, 0.0)


def test_merged_trees_are_the_tree_of_all_samples() -> None:
    halves = [stacks.tree(SAMPLES[::2]), stacks.tree(SAMPLES[1::2])]
    whole, merged = stacks.tree(SAMPLES), stacks.merge(halves)
    assert merged.total_ms == pytest.approx(whole.total_ms)
    assert merged == whole
