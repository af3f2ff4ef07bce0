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


def waiting_threads(m: Measures) -> Finding | None:
    """Gain: all of inference gets as fast as products of matrices are on one core of any processor.

    An operator ends with its last thread, and that one may wait for a core which other processes have.
    """
    gflops, part = m.ops.gflops(), m.matmul_share()
    if m.gpu is not None or m.threads() < 2 or m.matmul_type() != "float32":
        return None
    spent_ms = m.stage_ms["inference"] * part
    if m.share(spent_ms) < limits.WAITING_SHARE or m.ops.mean_matmul_us() < limits.WAITING_US:
        return None
    # What uses each weight once cannot be faster than memory.
    least = limits.WAITING_GFLOPS if m.ops.reuse() < limits.MUCH_REUSE else limits.WAITING_REUSE_GFLOPS
    if not 0 < gflops < least:
        return None
    is_own = m.sets_threads()
    return Finding(
        name="waiting-threads",
        figure=f"products of matrices reach {gflops:.2g} GFLOP/s with {m.threads()} threads, and take "
        f"{spent_ms:.1f} ms of a request's {m.total_ms:.1f} ms",
        value=gflops,
        threshold=least,
        why="One core alone does more: threads wait for each other, because something else has the cores too.",
        fix=f"Call torch.set_num_threads(1) in {initialize_text(m)}."
        if is_own
        else "Give each worker one thread: threads_per_worker=1.",
        expected_gain=m.gain((1 - gflops / limits.CORE_GFLOPS) * m.stage_ms["inference"]),
        settings={} if is_own else {"threads_per_worker": 1},
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
    figure, value, threshold, fix = _bound(m, peak)
    return Finding(
        name="nothing-to-fix",
        figure=figure,
        value=value,
        threshold=threshold,
        why="No rule found anything that costs time without need.",
        fix=fix,
        expected_gain=1.0,
    )


_NO_FIX = "Nothing. For more requests a second: a smaller model, more cores, or more clients to fill the batches."
_OWN_CODE_FIX = "No rule looks into code without torch: if it loops in Python or waits for something, begin there."


def _bound(m: Measures, peak: Peak) -> tuple[str, float, float, str]:
    """What most of the time goes into, which share of it, from which share on that counts, and what to do."""
    handler_share = m.share(m.batch_ms)
    if handler_share < limits.BOUND_SHARE:
        rest = "the rest is HTTP and the way to the worker and back"
        text = f"the handler takes {m.batch_ms:.2f} of a request's {m.total_ms:.2f} ms, {rest}"
        return text, 1 - handler_share, 1 - limits.BOUND_SHARE, _NO_FIX
    # Else what its operators are bound by is not what the request is.
    is_inference = m.stage_ms["inference"] >= limits.BOUND_SHARE * m.batch_ms
    matmul = m.matmul_share() if is_inference else 0.0
    if matmul >= limits.MATMUL_BOUND_SHARE:
        return _bound_by_matmul(m, matmul, peak), matmul, limits.MATMUL_BOUND_SHARE, _NO_FIX
    name, share = m.top_operator() if is_inference else ("", 0.0)
    if share >= limits.TOP_SHARE:
        text = f"bound by {name}, {share:.0%} of inference ({m.stage_ms['inference']:.1f} ms)"
        return text, share, limits.TOP_SHARE, _NO_FIX
    place = hottest(m)
    where = f", most of it in {place.text()}" if place else "" if m.is_traced else "; its operators were not recorded"
    text = f"bound by the handler's own code, {m.batch_ms:.1f} ms of a request's {m.total_ms:.1f} ms{where}"
    return text, handler_share, limits.BOUND_SHARE, _OWN_CODE_FIX if m.is_traced else _NO_FIX


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
