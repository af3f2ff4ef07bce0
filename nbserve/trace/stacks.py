"""Sampled Python stacks as one tree. Pure; kernel or terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nbserve.trace.model import StackNode

ROOT = "all"


class _Node:
    """A function while samples are added; `lines` holds the time by line, of which the hottest is shown."""

    def __init__(self) -> None:
        self.total_ms = 0.0
        self.self_ms = 0.0
        self.lines: dict[int, float] = {}
        self.children: dict[tuple[str, str], _Node] = {}

    def child(self, name: str, file: str, line: int, ms: float) -> _Node:
        node = self.children.setdefault((name, file), _Node())
        node.total_ms += ms
        node.lines[line] = node.lines.get(line, 0.0) + ms
        return node

    def add(self, other: StackNode) -> None:
        """Count in a tree that is done."""
        self.self_ms += other.self_ms
        for child in other.children:
            self.child(child.name, child.file, child.line, child.total_ms).add(child)

    def done(self, name: str, file: str) -> StackNode:
        children = [node.done(*key) for key, node in self.children.items()]
        return StackNode(
            name=name,
            file=file,
            line=max(self.lines, key=self.lines.__getitem__, default=0),
            total_ms=self.total_ms,
            self_ms=self.self_ms,
            children=tuple(sorted(children, key=lambda child: -child.total_ms)),
        )


def tree(samples: Iterable[Mapping[str, Any]]) -> StackNode:
    """The tree of samples `{"frames": [[function, file, line], ... outermost first], "ms": weight}`."""
    root = _Node()
    for sample in samples:
        ms = float(sample["ms"])
        root.total_ms += ms
        node = root
        for name, file, line in sample["frames"]:
            node = node.child(str(name), str(file), int(line), ms)
        node.self_ms += ms
    return root.done(ROOT, "")


def merge(trees: Iterable[StackNode]) -> StackNode:
    """Several workers' trees as one."""
    root = _Node()
    for each in trees:
        root.total_ms += each.total_ms
        root.add(each)
    return root.done(ROOT, "")
