"""The deployment: one handler behind Ray's router, with Ray's batching. Runs in Ray's replica.

What needs torch is imported when a replica starts, so that building an application stays light.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from nbserve.bundle.bundle import Bundle
from nbserve.config import EndpointConfig
from nbserve.errors import ConfigError
from nbserve.exchange import decode, encode, predict_error
from nbserve.ray import mapping
from nbserve.wire import Batch, Result, Row
from nbserve.worker.spec import WorkerSpec

if TYPE_CHECKING:
    from nbserve.ray.engine import Engine
    from nbserve.server.ticket import Ticket


class Replica:
    """Answers nbserve's routes with the handler of a bundle; `predict` is for handles of other deployments."""

    def __init__(self, bundle: str, settings: Mapping[str, Any]) -> None:
        from nbserve.ray.front import Front, Queue
        from nbserve.ray.metrics import BatchReport

        # Before the handler's own files become the working folder.
        self._bundle = Bundle.read(Path(bundle).absolute())
        self._config = EndpointConfig().changed(settings)
        self._report = BatchReport(self._bundle.name)
        self._queue = Queue(self._bundle.name, self._bundle.version, self._batched, self._report.count)
        self._front = Front(self._queue)
        self._engine: Engine | None = None

    def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Take over what `user_config` says; Ray calls it before a replica is ready, and again at each change."""
        self._config = config = mapping.live_config(self._config, user_config)
        if self._engine is None:
            # Only now: the compiler warms up for batches of the size that they will have.
            from nbserve.ray.engine import Engine

            self._engine = Engine(_spec(self._bundle, config))
        self._batched.set_max_batch_size(config.max_batch_size)
        self._batched.set_batch_wait_timeout_s(mapping.batch_wait_s(config))
        # Those that run do not wait.
        self._queue.size = config.queue_size + config.max_batch_size
        self._queue.timeout_s = config.response_timeout_s
        self._engine.configure(isolate_errors=config.isolate_errors)

    async def __call__(self, request: Request) -> Response:
        return await self._front.answer(request)

    async def predict(self, body: Any, content_type: str | None = None) -> Any:
        """Answer one request of another deployment, as `Endpoint.predict` does; raises PredictError."""
        data, kind = encode(body)
        reply = await self._queue.ask(data, content_type or kind)
        if reply.status >= 400:
            raise predict_error(reply.status, reply.body)
        return decode(reply.body, reply.content_type)

    def check_health(self) -> None:
        """Raise when the handler hangs: Ray then starts another replica in this one's place."""
        assert self._engine is not None
        self._engine.report()
        busy_s = self._engine.busy_s()
        if busy_s > self._config.response_timeout_s:
            raise RuntimeError(f"the handler has been at a batch for {busy_s:.0f} s, longer than response_timeout_s")

    @serve.batch(max_batch_size=1, batch_wait_timeout_s=0.0)
    async def _batched(self, tickets: list[Ticket]) -> list[Result]:
        """The answers to a batch. Ray forms the next one while this one runs."""
        wanted = [ticket for ticket in tickets if not ticket.is_gone()]
        if not wanted:
            return [Result(499, b"", b"")] * len(tickets)
        assert self._engine is not None
        began_ns = time.monotonic_ns()
        rows = [Row(ticket.request_id, ticket.meta, memoryview(ticket.body)) for ticket in wanted]
        outcome = await asyncio.wrap_future(self._engine.run(Batch(wanted[0].request_id, rows)))
        self._report.observe_batch(wanted, began_ns, outcome.stamps, time.monotonic_ns())
        answers = dict(zip(map(id, wanted), outcome.results, strict=True))
        return [answers.get(id(ticket), Result(499, b"", b"")) for ticket in tickets]


def _spec(bundle: Bundle, config: EndpointConfig) -> WorkerSpec:
    context = serve.get_replica_context()
    reserved = ray.get_runtime_context().get_assigned_resources()
    return WorkerSpec(
        bundle=str(bundle.path),
        endpoint=bundle.name,
        version=bundle.version,
        worker_index=_rank(context),
        device=_device(config),
        threads=mapping.threads(config, reserved.get("CPU", 0.0)),
        isolate_errors=config.isolate_errors,
        id_prefix=context.replica_id.unique_id,
        max_batch_size=config.max_batch_size,
        compile=config.compile,
        compile_mode=config.compile_mode,
        dtype=config.dtype,
        channels_last=config.channels_last,
        inference_mode=config.inference_mode,
        compile_cache=_compile_cache() if config.compile else None,
    )


def _compile_cache() -> str | None:
    """What a replica compiles is there for the next one on this node, where there is a folder for it."""
    from nbserve.server.specs import make_compile_cache

    with suppress(OSError, RuntimeError):
        return str(make_compile_cache())
    return None


def _rank(context: Any) -> int:
    """Its number among the replicas, where this release of Ray counts them."""
    rank = getattr(context, "rank", 0)
    return int(getattr(rank, "rank", rank) or 0)


def _device(config: EndpointConfig) -> str:
    """Ray shows a replica its own GPUs alone, so the first of them is the one."""
    has_gpu = bool(ray.get_runtime_context().get_accelerator_ids().get("GPU"))
    if config.device == "auto":
        return "cuda:0" if has_gpu else "cpu"
    if mapping.wants_gpu(config):
        if not has_gpu:
            raise ConfigError(f"device is {config.device!r} but Ray gave this replica no GPU: it needs num_gpus")
        return "cuda:0"
    return config.device
