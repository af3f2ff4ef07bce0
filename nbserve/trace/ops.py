"""The table of operators and kernels, with the totals of torch's own `key_averages()`. Pure; kernel or terminal."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from nbserve.trace.model import CATEGORIES, Events, OpRow, Timeline, TrackKind

# Every batch is annotated with its number; in the table they are one row.
BATCH = "nbserve.batch"
_NUMBERED = re.compile(rf"^({re.escape(BATCH)}|ProfilerStep)[ #]\S+$")

_ON_CPU = np.isin(CATEGORIES, ("op", "annotation", "runtime", "overhead"))
_ON_GPU = np.isin(CATEGORIES, ("kernel", "memcpy", "memset"))
_ANNOTATION = CATEGORIES.index("annotation")


def table(timeline: Timeline) -> list[OpRow]:
    """One row for each name on each device, those with most self time first."""
    return rows(timeline.events)


def rows(events: Events) -> list[OpRow]:
    """The table of these events alone."""
    chosen = np.flatnonzero(_ON_CPU[events.category] | _ON_GPU[events.category])
    if not len(chosen):
        return []
    gpu = _ON_GPU[events.category[chosen]]
    keys, group = _groups(events, chosen, gpu)
    counted = ~repeats(events)[chosen]
    calls = np.bincount(group, counted, len(keys))
    self_ns = np.bincount(group, events.self_ns[chosen], len(keys))
    total_ns = np.bincount(group, np.where(counted, events.duration_ns[chosen], 0), len(keys))
    whole = {on_gpu: max(1.0, float(events.self_ns[chosen][gpu == on_gpu].sum())) for on_gpu in (False, True)}
    shapes = _costliest_details(events, chosen, group, len(keys))
    table = [
        OpRow(
            name=name,
            device=_device(on_gpu),
            calls=int(calls[i]),
            self_us=float(self_ns[i] / 1e3),
            total_us=float(total_ns[i] / 1e3),
            share=float(self_ns[i] / whole[on_gpu]),
            shapes=shapes[i],
        )
        for i, (name, on_gpu, _) in enumerate(keys)
    ]
    return sorted(table, key=lambda row: (-row.self_us, row.name))


def repeats(events: Events) -> NDArray[np.bool_]:
    """Events that only pass on to one of their own name, their caller's: torch counts the two as one call."""
    has_parent = events.parent >= 0
    parent = np.where(has_parent, events.parent, 0)
    children = np.bincount(events.parent[has_parent], minlength=max(1, len(events)))
    result: NDArray[np.bool_] = has_parent & (children[parent] == 1) & (events.name == events.name[parent])
    return result


def _groups(
    events: Events, chosen: NDArray[np.int64], gpu: NDArray[np.bool_]
) -> tuple[list[tuple[str, bool, bool]], NDArray[np.int64]]:
    """The (name, is on the GPU, is an annotation) of each row, and the row that each event counts in."""
    annotated = events.category[chosen] == _ANNOTATION
    codes, code_of = np.unique(events.name[chosen].astype(np.int64) * 4 + gpu * 2 + annotated, return_inverse=True)
    keys: dict[tuple[str, bool, bool], int] = {}
    row_of = [
        keys.setdefault((row_name(events.names[code // 4]), bool(code & 2), bool(code & 1)), len(keys))
        for code in codes.tolist()
    ]
    return list(keys), np.array(row_of)[code_of.ravel()]


def row_name(name: str) -> str:
    """What an event's name is in the table."""
    if not name.startswith((BATCH, "ProfilerStep")):
        return name
    numbered = _NUMBERED.match(name)
    return name if numbered is None else BATCH if numbered[1] == BATCH else "ProfilerStep*"


def _costliest_details(events: Events, chosen: NDArray[np.int64], group: NDArray[np.int64], count: int) -> list[str]:
    """Of each row the arguments with most total time, "" when none are known."""
    details = [""] * count
    detail = events.detail[chosen]
    known = detail >= 0
    if not known.any():
        return details
    width = len(events.details)
    pairs, pair_of = np.unique(group[known] * width + detail[known], return_inverse=True)
    cost = np.bincount(pair_of.ravel(), events.duration_ns[chosen][known])
    for pair in pairs[np.argsort(cost, kind="stable")].tolist():
        details[pair // width] = events.details[pair % width]
    return details


def _device(on_gpu: bool) -> TrackKind:
    return "gpu" if on_gpu else "cpu"
