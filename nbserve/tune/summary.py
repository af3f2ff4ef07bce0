"""What came of an auto-tune as text, as lines of progress, and as an object for programs. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from nbserve.tune.points import Load, Point
from nbserve.tune.proof import Proof, Side
from nbserve.tune.state import State, best_of_each

if TYPE_CHECKING:
    from nbserve.tune.tuned import Tuned

WIDTH = 110
SHOWN = 5
# More requests than these from others change what is measured.
FEW_REQUESTS = 20
SMALL_CROWD = 0.1


class Row(NamedTuple):
    """A line of the table."""

    title: str
    throughput: float
    p99_ms: float
    load: str
    settings: str


def text(tuned: Tuned, command: str = "%serve") -> str:
    """The whole; `command` is what the settings are applied with."""
    # Code is not wrapped: it is there to be copied.
    steps = [f"  {before} {code}" for before, code in next_steps(tuned, command)]
    table = map(_line, rows(tuned.state, tuned.proof))
    head = f"  {'':8}{'requests/s':>11}{'p99':>10}  {'under':<18}settings"
    return "\n".join([headline(tuned), head, *table, *map(_wrapped, notes(tuned)), *steps])


def headline(tuned: Tuned) -> str:
    """The verdict in one sentence."""
    within, best, verdict = f"within {tuned.goal.p99_ms:g} ms", tuned.best.settings.words(), tuned.verdict
    low, high = tuned.interval
    if verdict == "faster":
        times = f"{tuned.speedup:.2f} times the throughput {within} (95 % interval {low:.2f} to {high:.2f})"
        return f"{tuned.name}: {times}, with {best}"
    if verdict == "keeps the goal":
        return f"{tuned.name}: keeps {tuned.goal.p99_ms:g} ms {_where(tuned)}, with {best}"
    if verdict == "leaner":
        return f"{tuned.name}: as fast with less: {best} ({low:.2f} to {high:.2f} times the throughput {within})"
    if verdict == "not proven":
        why = "interrupted" if tuned.is_interrupted else "the time was too short"
        return f"{tuned.name}: {why}; the best so far {within}: {best}, not proven"
    return f"{tuned.name}: no gain: {_no_gain(tuned)}"


def _where(tuned: Tuned) -> str:
    rate = tuned.best.load.rate
    if rate is None:
        return "as the settings before do not"
    current = tuned.state.board.best_within(tuned.state.current)
    most = f"{current.throughput:,.0f}" if current else f"less than {tuned.goal.rate:g}"
    return f"up to {rate:,.0f} requests/s, the settings before up to {most}"


def _no_gain(tuned: Tuned) -> str:
    if tuned.proof is None:
        return "the settings are as good as any that were tried"
    if not tuned.proof.best.keeps(tuned.goal):
        return f"the best that was found passed {tuned.goal.p99_ms:g} ms when it was measured again"
    low, high = tuned.interval
    return f"the settings are as good as the best that was found ({low:.2f} to {high:.2f} times the throughput)"


def rows(state: State, proof: Proof | None = None) -> list[Row]:
    """The settings before, the best, and others that come near; what was proven counts more than what was seen."""
    before, best = state.current_point, state.best_point
    found = []
    if before is not None:
        found.append(_row("before", before, proof.current if proof else None))
    if best is not None and best.settings != state.current:
        found.append(_row("best", best, proof.best if proof else None))
    shown = {state.current, state.best}
    others = [point for point in best_of_each(state.board) if point.settings not in shown]
    return [*found, *(_row("", point) for point in others[: SHOWN - len(found)])]


def _row(title: str, point: Point, proven: Side | None = None) -> Row:
    seen = proven or point
    return Row(title, seen.throughput, seen.p99_ms, seen.load.words(), point.settings.words())


def _line(row: Row) -> str:
    return f"  {row.title:8}{rate(row.throughput):>11}{milliseconds(row.p99_ms):>10}  {row.load:<18}{row.settings}"


def notes(tuned: Tuned) -> Iterator[str]:
    """What to know of it."""
    state = tuned.state
    yield f"{state.tried} settings in {state.measured} measurements, {tuned.seconds:.0f} s{_end(tuned)}"
    if tuned.disturbing > FEW_REQUESTS:
        yield (
            f"clients sent {tuned.disturbing:,} requests to {tuned.name} meanwhile, which took part of the machine: "
            f"the figures are lower than they could be"
        )
    if tuned.crowd > SMALL_CROWD:
        yield (
            f"other processes took {tuned.crowd:.0%} of this machine's CPU time meanwhile: the figures are lower than "
            f"they could be, and less sure"
        )
    if tuned.limit:
        yield tuned.limit
    if failed := failures(state):
        yield failed


def _end(tuned: Tuned) -> str:
    if tuned.is_interrupted:
        return "; nothing was changed"
    return "; nothing near the best is better" if tuned.is_clear else "; more --seconds may find more"


def next_steps(tuned: Tuned, command: str) -> Iterator[tuple[str, str]]:
    """What to do next, and the code for it."""
    now = tuned.state.current.as_dict()
    changes = [f"{name}={value}" for name, value in tuned.settings.items() if value != now[name]]
    change = f"{command} config {tuned.name} {' '.join(changes)}"
    cell = f"%%serve {tuned.name} {tuned.options}".rstrip()
    if tuned.is_applied:
        yield "applied; for when the cell runs again:", cell
    elif tuned.is_gain:
        yield "apply it with .apply() or" if command.startswith("%") else "apply it:", change
        yield "or write it where it is served:", cell
    elif tuned.verdict == "not proven":
        yield "to try it all the same:", change


def failures(state: State) -> str:
    """Which settings failed, and how: the first of them."""
    for point in state.points:
        if errors := {what: count for what, count in point.errors.items() if not what.startswith("no answer")}:
            counted = ", ".join(f"{count} times {what}" for what, count in errors.items())
            return f"requests failed with {point.settings.words()} and {point.load.words()}: {counted}"
    return ""


def progress(state: State) -> str:
    """One line for terminals."""
    best = state.best_point
    found = f"best {rate(best.throughput)}/s" if best else "nothing keeps the goal yet"
    return f"{state.name}: {state.share:.0%} {found} | {state.what}"


def as_object(tuned: Tuned) -> dict[str, Any]:
    low, high = tuned.interval
    return {
        "endpoint": tuned.name,
        "goal": {"p99_ms": tuned.goal.p99_ms, "rate": tuned.goal.rate},
        "verdict": tuned.verdict,
        "speedup": tuned.speedup,
        "interval": [low, high],
        "best": _point(tuned.best),
        "current": _point(tuned.current) if tuned.current else None,
        "points": [_point(point) for point in tuned.points],
        "options": tuned.options,
        "seconds": tuned.seconds,
        "is_clear": tuned.is_clear,
        "is_interrupted": tuned.is_interrupted,
        "is_applied": tuned.is_applied,
        "notes": list(notes(tuned)),
    }


def _point(point: Point) -> dict[str, Any]:
    load: Load = point.load
    return {
        "settings": point.settings.as_dict(),
        "clients": load.clients if load.rate is None else None,
        "rate": load.rate,
        "throughput": point.throughput,
        "p50_ms": _finite(point.p50_ms),
        "p99_ms": _finite(point.p99_ms),
        "errors": point.errors,
    }


def _finite(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if value < float("inf") else None


def rate(throughput: float) -> str:
    return f"{throughput:,.0f}" if throughput >= 100 else f"{throughput:.3g}"


def milliseconds(ms: float) -> str:
    return f"{ms:,.0f} ms" if ms >= 100 else f"{ms:.3g} ms"


def _wrapped(note: str) -> str:
    return textwrap.fill(note, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
