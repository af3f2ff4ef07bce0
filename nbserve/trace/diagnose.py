"""What is wrong, worst first, and what to do about it: all rules over one recording. Pure; kernel or terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from nbserve.trace.model import Finding, Timeline
from nbserve.trace.rules import machine, model, requests
from nbserve.trace.rules import thresholds as limits
from nbserve.trace.rules.machine import Peak
from nbserve.trace.rules.measures import Measures, measure

Rule = Callable[[Measures], Finding | None]

# Of two findings that promise the same the first one here comes first.
RULES: Sequence[Rule] = (
    model.train_mode,
    model.autograd,
    machine.oversubscribed,
    machine.waiting_threads,
    requests.batch_wait,
    requests.slow_preprocess,
    requests.slow_postprocess,
    model.item_syncs,
    model.launch_bound,
    model.slow_python,
    machine.gpu_idle,
    model.copies,
    model.fp32_matmul,
    requests.small_batches,
    requests.ipc,
    requests.queue_bound,
    requests.cold_start,
)

# Wrong answers come before slow ones.
WRONG = frozenset(("train-mode",))

# What a finding explains is no finding of its own.
EXPLAINS: Mapping[str, frozenset[str]] = {
    "small-batches": frozenset(("queue-bound",)),
    "oversubscribed-threads": frozenset(("waiting-threads",)),
    "item-syncs": frozenset(("launch-bound", "gpu-idle")),
    "launch-bound": frozenset(("gpu-idle",)),
    "slow-preprocess": frozenset(("gpu-idle",)),
}

# These follow from slow batches: they are told, but after what makes the batches slow.
CONSEQUENCES = frozenset(("queue-bound", "small-batches"))
_CAUSES = frozenset(
    (
        "oversubscribed-threads",
        "waiting-threads",
        "slow-preprocess",
        "slow-postprocess",
        "item-syncs",
        "launch-bound",
        "slow-python",
        "gpu-idle",
        "copies",
        "fp32-matmul",
        "ipc",
    )
)


def findings(timeline: Timeline, *, peak_gflops: Peak = None) -> list[Finding]:
    """All findings, the one to deal with first in front; when nothing is wrong, one that says what bounds the speed.

    `peak_gflops` is what this CPU reaches in multiplying matrices, or a function that measures it for a number of
    threads, which is only called when it matters.
    """
    measures = measure(timeline)
    if not measures.batches:
        return [_no_batches()]
    found = [finding for rule in RULES if (finding := rule(measures)) is not None]
    ranked = ordered(unexplained(found)) or [machine.nothing_to_fix(measures, peak_gflops)]
    return [_with_doubt(finding, len(measures.batches)) for finding in ranked]


def unexplained(found: Sequence[Finding]) -> list[Finding]:
    """Without those that another one explains."""
    explained = frozenset().union(*(EXPLAINS.get(finding.name, frozenset()) for finding in found))
    return [finding for finding in found if finding.name not in explained]


def ordered(found: Sequence[Finding]) -> list[Finding]:
    """Wrong answers, then by expected gain, consequences after their causes; else as in RULES."""
    has_cause = any(finding.name in _CAUSES for finding in found)
    return sorted(
        found,
        key=lambda finding: (
            finding.name not in WRONG,
            has_cause and finding.name in CONSEQUENCES,
            -finding.expected_gain,
        ),
    )


def _with_doubt(finding: Finding, batches: int) -> Finding:
    if batches >= limits.FEW_BATCHES:
        return finding
    seen = "only one batch was" if batches == 1 else f"only {batches} batches were"
    return replace(finding, figure=f"{finding.figure} ({seen} recorded)")


def _no_batches() -> Finding:
    return Finding(
        name="no-batches",
        figure="0 batches were recorded after the first",
        value=0.0,
        threshold=1.0,
        why="Without requests there is nothing to measure; a worker's first batch does not tell of the others.",
        fix="Send requests while it records (--load 20), or record for longer (--seconds 30).",
        expected_gain=1.0,
    )
