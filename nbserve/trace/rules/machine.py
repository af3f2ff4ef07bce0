"""Rules about the machine: threads, the GPU, and how near to its limit the processor is. Pure."""

from __future__ import annotations

from collections.abc import Callable

from nbserve.trace.model import Finding
from nbserve.trace.rules import thresholds as limits
from nbserve.trace.rules.measures import Measures
from nbserve.trace.rules.places import hottest, initialize_text

# GFLOP/s of this CPU, or what measures them for a number of threads.
Peak = float | Callable[[int], float | None] | None


def oversubscribed(m: Measures) -> Finding | None:
    """Gain: of all threads of a batch only as many as there are cores run; inference loses what the others wait."""
    cores, busy, threads = m.recording["cores"], m.busy_workers(), m.threads()
    if m.gpu is not None or busy * threads <= cores * limits.THREADS_PER_CORE + 0.5:
        return None
    fitting = max(1, int(cores / max(1.0, busy)))
    is_own = m.sets_threads()
    waiting = 1 - cores / (busy * threads)
    return Finding(
        name="oversubscribed-threads",
        figure=f"{busy:.1f} busy workers of {threads} threads share {cores} cores",
        value=busy * threads / cores,
        threshold=limits.THREADS_PER_CORE,
        why="Threads of one operator wait for each other while others have their cores.",
        fix=f"Remove torch.set_num_threads from {initialize_text(m)}: nbserve divides the cores."
        if is_own
        else f"Give each worker its part of the cores: threads_per_worker={fitting}.",
        expected_gain=max(m.gain(waiting * m.stage_ms["inference"]), 1.01),
        settings={} if is_own else {"threads_per_worker": fitting},
    )


def gpu_idle(m: Measures) -> Finding | None:
    """Gain: CUDA graphs leave about 20 % of the time in which the GPU waits."""
    if m.gpu is None or m.gpu.idle_share < limits.GPU_IDLE_SHARE:
        return None
    idle = m.gpu.idle_share
    idle_ms = idle * (m.stage_ms["inference"] + m.stage_ms["postprocess"] + m.stage_ms["encode"])
    return Finding(
        name="gpu-idle",
        figure=f"the GPU has nothing to do for {idle:.0%} of the time from inference to the answer",
        value=idle,
        threshold=limits.GPU_IDLE_SHARE,
        why="The processor launches kernels more slowly than the GPU runs them.",
        fix="Launch them all at once: compile=inductor compile_mode=reduce-overhead.",
        expected_gain=m.gain((1 - limits.GRAPHED_PART) * idle_ms),
        settings={"compile": "inductor", "compile_mode": "reduce-overhead"},
    )


def nothing_to_fix(m: Measures, peak: Peak = None) -> Finding:
    """What is left when no rule found anything: what the time goes into. No gain."""
    figure, value, threshold = _bound(m, peak)
    return Finding(
        name="nothing-to-fix",
        figure=figure,
        value=value,
        threshold=threshold,
        why="No rule found anything that costs time without need.",
        fix="Nothing. For more requests a second: a smaller model, more cores, or more clients to fill the batches.",
        expected_gain=1.0,
    )


def _bound(m: Measures, peak: Peak) -> tuple[str, float, float]:
    """What most of the time goes into, which share of it, and from which share on that counts."""
    handler_share = m.share(m.batch_ms)
    if handler_share < limits.BOUND_SHARE:
        rest = "the rest is HTTP and the way to the worker and back"
        text = f"the handler takes {m.batch_ms:.2f} of a request's {m.total_ms:.2f} ms, {rest}"
        return text, 1 - handler_share, 1 - limits.BOUND_SHARE
    matmul = m.matmul_share()
    if matmul >= limits.MATMUL_BOUND_SHARE:
        return _bound_by_matmul(m, matmul, peak), matmul, limits.MATMUL_BOUND_SHARE
    name, share = m.top_operator()
    if share >= limits.TOP_SHARE:
        text = f"bound by {name}, {share:.0%} of inference ({m.stage_ms['inference']:.1f} ms)"
        return text, share, limits.TOP_SHARE
    place = hottest(m)
    where = f", most of it in {place.text()}" if place else "" if m.is_traced else "; its operators were not recorded"
    text = f"bound by the handler's own code, {m.batch_ms:.1f} ms of a request's {m.total_ms:.1f} ms{where}"
    return text, handler_share, limits.BOUND_SHARE


def _bound_by_matmul(m: Measures, share: float, peak: Peak) -> str:
    whole = f"{share:.0%} of inference ({m.stage_ms['inference']:.1f} ms)"
    gflops = m.ops.gflops() if m.gpu is None else 0.0
    most = peak(m.threads()) if callable(peak) and gflops else peak
    if not gflops or callable(most) or not most:
        return f"bound by matmul, {whole}"
    # It may be faster than what was measured: some convolutions get by with less arithmetic than is counted.
    most = max(most, gflops)
    reached = f"{gflops / most:.0%} of this CPU's peak ({gflops:.0f} of {most:.0f} GFLOP/s)"
    return f"bound by matmul at {reached}, {whole}"
