"""Rules about the way of a request: the queue, batching, the way to the worker, and preprocessing. Pure."""

from __future__ import annotations

from nbserve.trace.model import Finding
from nbserve.trace.rules import thresholds as limits
from nbserve.trace.rules.measures import Measures
from nbserve.trace.rules.places import initialize_text, method_text


def batch_wait(m: Measures) -> Finding | None:
    """Gain: the wait is gone. Batches may then be smaller, which costs less than the wait did: it was the larger."""
    waited_ms = m.stage_ms["batch_wait"]
    share = m.share(waited_ms)
    is_window = m.settings.get("policy") == "window"
    is_alone = m.rows < limits.ALONE_ROWS
    if share < limits.BATCH_WAIT_SHARE or waited_ms < limits.LEAST_BATCH_WAIT_MS or not (is_window or is_alone):
        return None
    size = f"{m.rows:.1f} of {m.settings.get('max_batch_size', '?')} requests a batch"
    fix = "Wait only for connections that come back: policy=adaptive."
    return Finding(
        name="batch-wait",
        figure=f"a request waits {waited_ms:.1f} ms for company, {share:.0%} of its {m.total_ms:.1f} ms ({size})",
        value=share,
        threshold=limits.BATCH_WAIT_SHARE,
        why="A worker is idle while the batching policy holds the request back for others"
        + (", and hardly any come." if is_alone else "; it would have been answered sooner than they came."),
        fix=fix if is_window else "Send what is there at once: policy=window with max_batch_delay_ms=0.",
        expected_gain=m.gain_without(waited_ms),
        settings={"policy": "adaptive"} if is_window else {"policy": "window", "max_batch_delay_ms": 0.0},
    )


def small_batches(m: Measures) -> Finding | None:
    """Gain: a batch four times larger leaves a row a quarter of what a batch costs whatever its size."""
    limit = int(m.settings.get("max_batch_size", 0))
    share = m.share(m.stage_ms["queue"])
    if not limit or share < limits.QUEUE_SHARE or m.rows < limits.FULL_BATCH * limit:
        return None
    fixed = m.fixed_share()
    gain = m.gain(m.service_ms * fixed * (1 - 1 / limits.LARGER_BATCH))
    if gain < limits.LEAST_GAIN:
        return None
    larger = limit * limits.LARGER_BATCH
    return Finding(
        name="small-batches",
        figure=f"batches are full with {m.rows:.1f} of {limit} requests, and others wait {_queue(m, share)}",
        value=share,
        threshold=limits.QUEUE_SHARE,
        why=f"About {fixed:.0%} of a batch's time does not depend on its size, and more requests could share it.",
        fix=f"Let batches grow: max_batch_size={larger}.",
        expected_gain=gain,
        settings={"max_batch_size": larger},
    )


def queue_bound(m: Measures) -> Finding | None:
    """Gain: twice the workers halve the queue as far as there are cores that one worker leaves idle.

    Operators use all threads of a worker, the rest of a batch's time only one: that part is what others can fill.
    """
    queue_ms = m.stage_ms["queue"]
    share = m.share(queue_ms)
    # A worker that always has a next batch keeps its requests waiting for one batch, and no longer.
    if share < limits.QUEUE_SHARE or queue_ms < limits.QUEUED_BATCHES * m.service_ms:
        return None
    workers = int(m.settings.get("workers", 1))
    more = _more_workers(m, workers)
    gain = m.gain_without(queue_ms * m.room() * (1 - workers / more))
    is_worth_it = gain >= limits.LEAST_GAIN
    return Finding(
        name="queue-bound",
        figure=f"a request waits {_queue(m, share)} for a worker; its batch then takes {m.service_ms:.1f} ms",
        value=share,
        threshold=limits.QUEUE_SHARE,
        why="Requests come faster than the workers answer them.",
        fix=f"Have more workers: workers={more}." if is_worth_it else _NO_ROOM,
        expected_gain=gain,
        settings={"workers": more} if is_worth_it else {},
    )


_NO_ROOM = "The cores have enough to do: make a batch faster, or send fewer requests at once."


def ipc(m: Measures) -> Finding | None:
    """Gain: numbers of one byte instead of four leave a quarter of the time that bytes take from client to worker."""
    ipc_ms, body_bytes = m.stage_ms["ipc"], m.per_request("bytes")
    share = m.share(ipc_ms)
    if share < limits.IPC_SHARE or ipc_ms < limits.LEAST_IPC_MS or body_bytes < limits.LARGE_BODY_BYTES:
        return None
    return Finding(
        name="ipc",
        figure=f"{body_bytes / 1e6:.1f} MB a request take {ipc_ms:.1f} ms from the server to its worker, "
        f"{share:.0%} of its {m.total_ms:.1f} ms",
        value=share,
        threshold=limits.IPC_SHARE,
        why="The bodies are large, and each byte is copied on its way, whatever the model does.",
        fix="Send the smallest form of the data (JPEG, or uint8 bytes instead of floats) and unpack it in preprocess.",
        expected_gain=m.gain_without((1 - limits.SMALLER_BODY_PART) * (ipc_ms + m.stage_ms["receive"])),
    )


def slow_preprocess(m: Measures) -> Finding | None:
    """Gain: code that takes the whole batch at once needs about a tenth of the time."""
    why, fix = _preprocess_texts(m)
    return _slow_stage(m, "preprocess", why, fix)


def slow_postprocess(m: Measures) -> Finding | None:
    """Gain: code that takes the whole batch at once needs about a tenth of the time."""
    # Who asks a GPU for its results waits there for all that it has to do.
    if m.gpu is not None:
        return None
    place = method_text(m, "postprocess")
    why = "The outputs are made into answers in Python, while the model of this worker does nothing."
    return _slow_stage(m, "postprocess", why, f"Take the batch at once with numpy or torch, in {place}.")


def _slow_stage(m: Measures, stage: str, why: str, fix: str) -> Finding | None:
    spent_ms = m.stage_ms[stage] - m.told_apart_ms(stage)
    share = m.share(spent_ms)
    if share < limits.STAGE_SHARE or spent_ms < limits.LEAST_STAGE_MS:
        return None
    return Finding(
        name=f"slow-{stage}",
        figure=f"{stage} takes {spent_ms:.1f} ms, {share:.0%} of a request's {m.total_ms:.1f} ms "
        f"(inference {m.stage_ms['inference']:.1f} ms)",
        value=share,
        threshold=limits.STAGE_SHARE,
        why=why,
        fix=fix,
        expected_gain=m.gain((1 - limits.VECTORISED_PART) * spent_ms),
    )


def _preprocess_texts(m: Measures) -> tuple[str, str]:
    json_bytes = m.per_request("json_bytes")
    if json_bytes * m.rows * limits.JSON_NS_PER_BYTE / 1e6 > m.stage_ms["preprocess"] * limits.JSON_SHARE:
        return (
            f"Most of it is reading {json_bytes / 1e6:.1f} MB of JSON a request: an object is made of each number.",
            "Send the numbers as bytes (array.tobytes()) and read them in preprocess with numpy.frombuffer.",
        )
    place = method_text(m, "preprocess")
    rows = m.ops.per_batch(m.ops.within("preprocess")) / max(1.0, m.rows)
    is_in_operators = m.operator_share("preprocess") >= limits.ROW_OPS_SHARE
    if m.rows >= limits.ALONE_ROWS and rows >= limits.OPS_BY_ROW and is_in_operators:
        return (
            f"It runs {rows:.0f} operators for each request instead of a few for the whole batch.",
            f"Stack the batch first and run each operator once, in {place}.",
        )
    return (
        "The worker prepares the batch in Python before the model may start.",
        f"Take the batch at once with numpy or torch, or move the work out of the request, in {place}.",
    )


def cold_start(m: Measures) -> Finding | None:
    """Gain: none for the requests that follow, which is what the gains of all findings are about."""
    usual_ms = m.warm_batch_ms()
    times = m.cold_ms / usual_ms if usual_ms else 0.0
    if times < limits.COLD_TIMES or m.cold_ms - usual_ms < limits.LEAST_COLD_MS:
        return None
    return Finding(
        name="cold-start",
        figure=f"a worker's first batch took {m.cold_ms:.0f} ms, {times:.0f} times the {usual_ms:.1f} ms of others",
        value=times,
        threshold=limits.COLD_TIMES,
        why="What the first call sets up (threads, kernels, caches) is paid for by the first client of each worker.",
        fix=f"Run the model once on an example at the end of {initialize_text(m)}.",
        expected_gain=1.0,
    )


def _queue(m: Measures, share: float) -> str:
    return f"{m.stage_ms['queue']:.1f} ms in the queue ({share:.0%} of {m.total_ms:.1f} ms)"


def _more_workers(m: Measures, workers: int) -> int:
    if m.gpu is not None:
        return workers * limits.MORE_WORKERS
    return max(workers, min(workers * limits.MORE_WORKERS, m.recording["cores"]))
