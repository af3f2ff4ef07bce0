"""Where in the handler time goes, from sampled Python stacks; and how a finding names it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nbserve.trace.model import StackNode
from nbserve.trace.rules.measures import Measures

_METHODS = ("preprocess", "inference", "postprocess", "handle")


class Place(NamedTuple):
    """A line of the handler that takes `share` of its method's time."""

    method: str
    file: str
    line: int
    share: float

    def text(self) -> str:
        return f"line {self.line} of {self.method} ({self.share:.0%} of its time)"


def hottest(measures: Measures, *methods: str) -> Place | None:
    """The line that takes most of these methods' time."""
    if measures.stack is None:
        return None
    nodes = [node for node in _walk(measures.stack) if _short(node.name) in (methods or _METHODS)]
    if not nodes:
        return None
    node = max(nodes, key=lambda node: node.total_ms)
    return _into(node, _file(measures) or node.file)


def method_text(measures: Measures, method: str) -> str:
    """What a fix calls the method that a stage runs: with its hottest line if that is known, else with its first."""
    if any(facts.get("stages") is False for facts in measures.facts):
        method = "handle"
    handler = _handler(measures)
    owner = f"{handler}.{method}" if handler else method
    place = hottest(measures, method)
    if _is_default(measures, method):
        return f"a {method} of your own: {owner} is the default one"
    if place and place.line:
        where = f"line {place.line} ({place.share:.0%} of its time)" if place.method == method else place.text()
        return f"{owner}, {where}"
    first = next(
        (f["handler"]["methods"].get(method) for f in measures.facts if "methods" in f.get("handler", {})), None
    )
    return f"{owner} (line {first[1]})" if first else owner


def _is_default(measures: Measures, method: str) -> bool:
    """Whether the handler leaves this method to nbserve, whose lines are no business of the reader."""
    return any("overrides" in facts and method not in facts["overrides"] for facts in measures.facts)


def initialize_text(measures: Measures) -> str:
    handler = _handler(measures)
    return f"{handler}.initialize" if handler else "initialize"


def model_name(measures: Measures) -> str:
    """How the handler calls its module."""
    names = [module["name"] for facts in measures.facts for module in facts.get("modules", [])]
    return f"self.{names[0]}" if names else "self.model"


def _into(node: StackNode, file: str) -> Place:
    """Down into the handler's own functions, as long as one of them has most of the time."""
    whole, name = node.total_ms or 1.0, _short(node.name)
    while inner := [child for child in node.children if child.file == file and child.total_ms > node.total_ms / 2]:
        node = inner[0]
        # A comprehension has no name to find it by.
        name = name if node.name.endswith(">") else _short(node.name)
    return Place(name, node.file, node.line, node.total_ms / whole)


def _walk(node: StackNode) -> Iterator[StackNode]:
    """Outermost first; what is below a method of the handler is its own business."""
    for child in node.children:
        yield child
        yield from _walk(child)


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _handler(measures: Measures) -> str:
    return next((f["handler"]["name"] for f in measures.facts if f.get("handler", {}).get("name")), "")


def _file(measures: Measures) -> str:
    return next((f["handler"]["file"] for f in measures.facts if f.get("handler", {}).get("file")), "")
