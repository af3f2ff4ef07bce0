"""Other settings tried out on workers of their own, beside an endpoint that does not notice. Server process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from nbserve.config import EndpointConfig
from nbserve.errors import ConfigError, Unavailable
from nbserve.server.metrics import EndpointMetrics
from nbserve.server.spans import SpanStore
from nbserve.server.specs import NEEDS_NEW_WORKERS
from nbserve.server.user_metrics import UserMetrics
from nbserve.server.version import Version


class Trial:
    """A version of the current bundle with other settings. Requests reach it by its name alone, once it is ready."""

    def __init__(self, name: str, current: Version, config: EndpointConfig) -> None:
        around = replace(
            current.around,
            spans=SpanStore(current.id_prefix),
            metrics=EndpointMetrics(current.name, UserMetrics()),
            on_change=lambda: None,
            failures=None,
            debug_socket=None,
            profile=None,
            # Its lines are no news of the endpoint.
            label=f"{current.name}/{name}",
        )
        self.name = name
        self.version = Version(current.bundle, config, around)
        self.is_ready = False
        self._lock = asyncio.Lock()
        self._closed = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None

    async def start(self, on_progress: Callable[[str], None]) -> None:
        await self.version.start(on_progress)
        # Not `serve`: breakpoints hold only in the endpoint's own workers.
        self.version.is_serving = self.is_ready = True

    async def configure(self, settings: Mapping[str, Any]) -> None:
        """Lay settings that can change while workers run over the current ones; done when new workers are ready."""
        async with self._lock:
            now = self.version.config
            config = now.changed(settings)
            fixed = [name for name in NEEDS_NEW_WORKERS if getattr(now, name) != getattr(config, name)]
            if fixed:
                raise ConfigError(
                    f"{self.name} runs, and {', '.join(fixed)} needs other workers: try it as another trial"
                )
            await self.version.configure(config)

    async def closed(self) -> None:
        """Until it is over though its client still wants it."""
        await self._closed.wait()

    async def stop(self) -> None:
        """End its workers after what they have in flight."""
        self.is_ready = False
        self._closed.set()
        if self._stopping is None or self._stopping.done():
            self._stopping = asyncio.create_task(self.version.stop())
        # Whoever asks may be cancelled; the workers must go.
        await asyncio.shield(self._stopping)


class Trials:
    """The trials of one endpoint; the name of an earlier one is never used again."""

    def __init__(self) -> None:
        self._all: dict[str, Trial] = {}
        self._numbers = itertools.count(1)
        self._is_closed = False

    def get(self, name: str) -> Trial | None:
        """The trial of that name that answers requests, None when there is none or not yet."""
        trial = self._all.get(name)
        return trial if trial is not None and trial.is_ready else None

    def find(self, name: str) -> Version | None:
        """The version that answers requests for that name, None when there is none or not yet."""
        trial = self.get(name)
        return trial.version if trial is not None else None

    def all(self) -> list[Trial]:
        return list(self._all.values())

    def left(self, connection: int) -> None:
        """A client's connection was closed: batches need not wait for it."""
        for trial in self._all.values():
            trial.version.batcher.left(connection)

    @asynccontextmanager
    async def open(
        self, current: Version, config: EndpointConfig, on_progress: Callable[[str], None]
    ) -> AsyncIterator[Trial]:
        """A trial that is ready, and that ends with the block; raises StartError or ConfigError."""
        if self._is_closed:
            raise Unavailable(f"endpoint {current.name} is stopping")
        trial = Trial(f"trial-{next(self._numbers)}", current, config)
        self._all[trial.name] = trial
        try:
            on_progress(f"starting {config.workers} worker{'s' * (config.workers > 1)} of {trial.name}")
            await trial.start(on_progress)
            yield trial
        finally:
            try:
                await trial.stop()
            finally:
                del self._all[trial.name]

    async def close(self) -> None:
        """The endpoint stops: no trial outlives it."""
        self._is_closed = True
        await asyncio.gather(*(trial.stop() for trial in self.all()))
