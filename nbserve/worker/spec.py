"""What a worker is told when it starts: read in the nursery, used in the worker."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WorkerSpec:
    """One worker of one version of an endpoint. A request's id as text is `id_prefix`, a dash, its number in hex.

    `debug_socket` is where its debugging agent listens (None: it has no agent); `breakpoints` says whether a
    `breakpoint()` holds from the start, `hold_timeout_s` for how long when no debugger comes. `compile_cache` is the
    folder where torch.compile keeps what it made, for the workers that follow. `recorded` is the bundle whose
    recorded requests warm the worker, where it has none itself. `profile` is what to record from the start on (None:
    nothing), as in the server's "profile" message.
    """

    bundle: str
    endpoint: str
    version: str
    worker_index: int = 0
    device: str = "cpu"
    threads: int = 1
    isolate_errors: bool = True
    id_prefix: str = ""
    max_batch_size: int = 1
    cpus: list[int] | None = None
    debug_socket: str | None = None
    breakpoints: bool = True
    hold_timeout_s: float = 120.0
    compile: str = ""
    compile_mode: str = ""
    dtype: str = ""
    channels_last: bool = False
    inference_mode: bool = False
    compile_cache: str | None = None
    recorded: str = ""
    profile: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> WorkerSpec:
        """The spec in a message of the server; keys that only a newer worker knows are left out."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in message.items() if name in names})

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
