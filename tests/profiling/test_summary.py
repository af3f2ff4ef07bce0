"""A profile in words, of a recording made up by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbserve.profiling import last, summary
from nbserve.profiling.profile import Profile
from nbserve.trace import sketch
from nbserve.trace.model import REQUEST_STAGES, Events, Finding, OpRow, Timeline

MS = 1_000_000


def span(number: int, received_ns: int = 0, **stages: float) -> Any:
    times = {f"{stage}_ms": float(stages.get(stage, 0.0)) for stage in REQUEST_STAGES}
    head = {"request_id": f"r{number}", "batch_id": number, "rows": 1, "worker": 0, "received_ns": received_ns}
    return {**head, **times, "total_ms": sum(times.values())}


def profile(spans: list[Any], findings: list[Finding], notes: tuple[str, ...] = ()) -> Profile:
    nothing = {name: np.zeros(0, np.int64) for name in Events.__dataclass_fields__ if name not in ("names", "details")}
    recording: Any = {
        "endpoint": "digits",
        "started_ns": 0,
        "ended_ns": 2_000 * MS,
        "spans": spans,
        "settings": {},
        "workers": [{"index": 0, "error": None, "trace": None}],
    }
    events = Events(names=[], details=[], **nothing)
    return Profile(Timeline(recording, spans, [], [], events, notes=notes), findings)


def finding(name: str, gain: float = 1.0, **settings: Any) -> Finding:
    return Finding(name, "9 of 10 requests wait", 9, 5, "It waits for nobody.", "Wait less.", gain, settings)


def test_the_bars_are_those_of_the_median_request():
    spans = [span(i, queue=i, inference=10.0, ipc=0.01) for i in range(11)]
    lines = profile(spans, []).text.splitlines()
    assert lines[0] == "digits: 11 requests, 0 batches recorded on worker 0 in 2.00 s"
    assert lines[1] == "the median request takes 15.0 ms:"
    assert lines[2].split() == ["queue", "5.00", "ms", "33%", "█" * 13]
    assert lines[3].split() == ["inference", "10.0", "ms", "67%", "█" * 27]
    assert len(lines) == 4


def test_the_median_request_is_the_one_of_the_picture():
    rng = np.random.default_rng(0)
    spans = [span(i, **{stage: rng.exponential(5) for stage in REQUEST_STAGES}) for i in range(100)]
    shown = sketch.median_span(spans)
    assert shown is not None
    assert profile(spans, []).text.splitlines()[1] == f"the median request takes {shown['total_ms']:.1f} ms:"


def test_findings_come_with_figure_reason_fix_and_proof():
    text = profile([span(0, queue=1)], [finding("autograd", 1.5, inference_mode=True), finding("slow-preprocess")]).text
    assert "1. autograd: 9 of 10 requests wait. It waits for nobody." in text
    assert "fix: Wait less. (up to 1.5 times faster)" in text
    assert "try it: %serve profile digits --ab 1" in text
    assert "2. slow-preprocess" in text
    assert "--ab 2" not in text


def test_in_a_terminal_the_proof_names_the_settings():
    text = summary.text(profile([span(0, queue=1)], [finding("a", inference_mode=True)]), "nbserve profile")
    assert "try it: nbserve profile digits --ab inference_mode=true" in text


def test_what_batches_spend_outside_of_operators_is_called_that():
    found = profile([span(0, queue=1)], [])
    found.ops = [OpRow("nbserve.batch", "cpu", 5, 14_500.0, 20_000.0, 0.3)]
    assert "(outside of operators)" in found.text
    assert "nbserve.batch" not in found.text


def test_it_stays_short():
    many = [finding(f"f{i}", inference_mode=True) for i in range(9)]
    text = profile([span(0, **dict.fromkeys(REQUEST_STAGES, 1.0))], many, notes=("Worker 1: it ended.",)).text
    lines = text.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= summary.WIDTH
    assert "more in .findings: f3, 5. f4" in text
    assert lines[-1] == "note: Worker 1: it ended."


def test_without_requests_it_says_so():
    assert "no request was answered while it recorded" in profile([], []).text


def test_how_many_ask_at_once():
    assert last.clients([]) == 1
    # One after the other.
    assert last.clients([span(i, i * 10 * MS, inference=10) for i in range(20)]) == 1
    # Four at a time.
    assert last.clients([span(i, (i // 4) * 10 * MS, inference=10) for i in range(40)]) == 4
    # A lonely one now and then.
    assert last.clients([span(i, i * 1000 * MS, inference=10) for i in range(5)]) == 1
