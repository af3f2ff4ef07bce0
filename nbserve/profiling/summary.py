"""A profile in twenty lines: where the time goes, what was found, the costliest operators. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nbserve.recording import Span
from nbserve.trace.model import Finding, OpRow
from nbserve.trace.ops import BATCH
from nbserve.trace.sketch import median_span, stages_of

if TYPE_CHECKING:
    from nbserve.profiling.profile import Profile

WIDTH = 110
BAR = 40
SHOWN_FINDINGS = 3
SHOWN_OPS = 5
_LEAST_SHARE = 0.01


def text(profile: Profile, command: str = "%serve profile") -> str:
    """The whole; `command` is what a finding's A/B is started with."""
    lines = [_head(profile), *_stages(profile.requests), *_findings(profile, command), *_ops(profile.ops)]
    return "\n".join([*lines, *(_wrapped(f"note: {note}", "") for note in profile.timeline.notes)])


def _head(profile: Profile) -> str:
    recording = profile.timeline.recording
    recorded = [batch for batch in profile.timeline.batches if batch.is_recorded]
    workers = ", ".join(str(worker["index"]) for worker in recording["workers"])
    seconds = (recording["ended_ns"] - recording["started_ns"]) / 1e9
    asked = plural(len(profile.requests), "request", "requests")
    batches = plural(len(recorded), "batch", "batches")
    on = "worker" if len(recording["workers"]) == 1 else "workers"
    line = f"{profile.name}: {asked}, {batches} recorded on {on} {workers} in {seconds:.2f} s"
    failed = sum(profile.load["errors"].values()) if profile.load is not None else 0
    return line + (f"; {failed} of the requests sent for it failed" if failed else "")


def plural(number: int, one: str, many: str) -> str:
    """A number and its noun."""
    return f"{number:,} {one if number == 1 else many}"


def _stages(spans: Sequence[Span]) -> Iterator[str]:
    span = median_span(spans)
    if span is None:
        yield "no request was answered while it recorded"
        return
    total_ms = span["total_ms"] or 1e-9
    yield f"the median request takes {_milliseconds(total_ms)}:"
    small_ms = 0.0
    for stage, ms in stages_of(span):
        if ms / total_ms >= _LEAST_SHARE:
            yield _bar(stage.replace("_", " "), ms, ms / total_ms)
        else:
            small_ms += ms
    if small_ms / total_ms >= _LEAST_SHARE:
        yield _bar("others", small_ms, small_ms / total_ms)


def _bar(stage: str, ms: float, share: float) -> str:
    return f"  {stage:<12}{_milliseconds(ms):>10} {share:>5.0%}  {'█' * max(1, round(share * BAR))}"


def _milliseconds(ms: float) -> str:
    return f"{ms:,.0f} ms" if ms >= 100 else f"{ms:.1f} ms" if ms >= 10 else f"{ms:.2f} ms"


def _findings(profile: Profile, command: str) -> Iterator[str]:
    found = profile.findings
    if found:
        yield "findings:"
    for number, finding in enumerate(found[:SHOWN_FINDINGS], 1):
        yield _wrapped(f"{number}. {finding.name}: {finding.figure}. {finding.why}", "     ", "  ")
        yield _wrapped(f"fix: {finding.fix}{_gain(finding)}", "     ", "     ")
        if finding.settings:
            yield f"     try it: {command} {profile.name} --ab {fix(number, finding, command)}"
    if len(found) > SHOWN_FINDINGS:
        names = ", ".join(f"{number}. {finding.name}" for number, finding in enumerate(found, 1))
        yield f"  more in .findings: {names.partition(f'{SHOWN_FINDINGS + 1}. ')[2]}"


def fix(number: int, finding: Finding, command: str) -> str:
    """A finding as `--ab` takes it: another process does not know the numbers of this one."""
    return str(number) if command.startswith("%") else assignments(finding.settings)


def assignments(settings: Mapping[str, Any]) -> str:
    """Settings as they are written in a command."""
    return ",".join(f"{name}={_word(value)}" for name, value in settings.items())


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _gain(finding: Finding) -> str:
    return f" (up to {finding.expected_gain:.1f} times faster)" if finding.expected_gain > 1.05 else ""


def _ops(rows: Sequence[OpRow]) -> Iterator[str]:
    if rows:
        yield "most time of its own:"
    for row in rows[:SHOWN_OPS]:
        calls, own = plural(row.calls, "call", "calls"), _milliseconds(row.self_us / 1000)
        # What batches spend outside of operators is a row too, under the name of its annotation.
        name = "(outside of operators)" if row.name == BATCH else row.name
        yield f"  {name[:48]:<48} {row.device} {calls:>14} {own:>10} {row.share:>4.0%}"


def _wrapped(text: str, indent: str, first: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=indent or "  ")
