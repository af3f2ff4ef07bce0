"""The blocks that app.py is made of, and the order in which they can run. Runs in the kernel; pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from nbserve.bundle.markers import marker


@dataclass(frozen=True)
class Use:
    """A line of a cell that uses a name."""

    label: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"  {self.label}, line {self.line}:  {self.text.strip()}"


@dataclass(eq=False)
class Block:
    """A piece of app.py that binds `name`. `first` must run before it; `later` only before it is called.

    `label` and `line` say where the cell has its first line. `seen` is the live object when it is code to be checked,
    `origins` the names that its attributes and defaults were made from.
    """

    name: str
    text: str = ""
    label: str | None = None
    line: int = 0
    first: list[Block] = field(default_factory=list)
    later: list[Block] = field(default_factory=list)
    seen: Any = None
    origins: dict[str, list[str]] = field(default_factory=dict)
    is_import: bool = False
    age: int = 0

    def __str__(self) -> str:
        return f"{marker(self.label, self.line)}\n{self.text}" if self.label else self.text


def in_order(root: Block) -> list[Block]:
    """All that `root` needs: imports first, then each block after what it needs."""
    placer = _Placer()
    placer.place(root)
    while placer.deferred:
        placer.place(placer.deferred.pop(0))
    imports = sorted({block.text for block in placer.placed if block.is_import}, key=_import_rank)
    lines = [Block("", "\n".join(imports), is_import=True)] if imports else []
    return lines + [block for block in placer.placed if not block.is_import]


def older_first(blocks: Iterable[Block], current: dict[str, Block]) -> None:
    """A name that was bound twice: who needs the older one is placed before the newer one takes the name."""
    versions: dict[str, list[Block]] = {}
    everything = list(blocks)
    for block in everything:
        versions.setdefault(block.name, []).append(block)
    for name, found in versions.items():
        if len(found) > 1:
            chain = sorted(found, key=lambda block: (block is current.get(name), -block.age))
            for older, newer in itertools.pairwise(chain):
                users = [block for block in everything if older in block.first and block is not newer]
                newer.first += [older, *users]


def out_of_order(ordered: list[Block]) -> Iterator[tuple[Block, Block]]:
    """Pairs (block, one it needs first) that no order can satisfy: they need each other."""
    placed: set[Block] = set()
    for block in ordered:
        yield from ((block, needed) for needed in block.first if not needed.is_import and needed not in placed)
        placed.add(block)


class _Placer:
    def __init__(self) -> None:
        self.placed: dict[Block, None] = {}
        self.deferred: list[Block] = []
        self._open: set[Block] = set()

    def place(self, block: Block) -> None:
        if block in self.placed or block in self._open:
            return
        self._open.add(block)
        for needed in block.first:
            self._make_callable(needed)
        for needed in block.later:
            if self._can_run_now(needed):
                self.place(needed)
        self._open.discard(block)
        self.placed[block] = None
        self.deferred += [needed for needed in block.later if needed not in self.placed]
        for needed in list(self.deferred):
            if self._can_run_now(needed):
                self.place(needed)

    def _make_callable(self, block: Block) -> None:
        """Code that a definition needs may be called by it: what it needs when called has to be there too."""
        for needed in _reachable(block):
            if self._can_run_now(needed):
                self.place(needed)
        self.place(block)

    def _can_run_now(self, block: Block) -> bool:
        waiting = {part for needed in block.first for part in (needed, *_reachable(needed))}
        return not waiting & self._open


def _reachable(block: Block) -> list[Block]:
    seen: dict[Block, None] = {}
    waiting = [block]
    while waiting:
        for needed in (part := waiting.pop()).first + part.later:
            if needed not in seen and needed is not block:
                seen[needed] = None
                waiting.append(needed)
    return list(seen)


def _import_rank(text: str) -> tuple[bool, str]:
    return text.startswith("from "), text
