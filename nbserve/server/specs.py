"""What a worker is told: all of it when it starts, what can change while it runs. Server process."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbserve.cachedir import cache_dir
from nbserve.config import EndpointConfig
from nbserve.server.logbook import logger

if TYPE_CHECKING:
    from nbserve.server.version import Version
    from nbserve.server.worker import Worker

# Settings that are applied to the handler's modules when a worker starts.
TUNING = ("compile", "compile_mode", "dtype", "channels_last", "inference_mode")
NEEDS_NEW_WORKERS = ("device", *TUNING)


def start_spec(version: Version, worker: Worker) -> dict[str, Any]:
    """What the nursery and the new worker need to know."""
    config, around = version.config, version.around
    return {
        "bundle": str(version.bundle.path),
        "recorded": str(version.recorded.path),
        "endpoint": version.name,
        "version": version.version,
        "worker_index": worker.index,
        "device": around.placement.device(config, worker.index),
        "cpus": around.placement.cpus(config, worker.index),
        "id_prefix": version.id_prefix,
        "debug_socket": around.debug_socket(worker.index) if around.debug_socket else None,
        "breakpoints": version.crew.may_hold(worker),
        "profile": around.profile(version, worker) if around.profile else None,
        **{name: getattr(config, name) for name in TUNING},
        "compile_cache": _compile_cache(config),
        **live_spec(version),
    }


def live_spec(version: Version) -> dict[str, Any]:
    """What the message `configure` carries."""
    config = version.config
    return {
        "threads": version.around.placement.threads(config),
        "isolate_errors": config.isolate_errors,
        "max_batch_size": config.max_batch_size,
        "hold_timeout_s": config.hold_timeout_s,
    }


def _compile_cache(config: EndpointConfig) -> str | None:
    if not config.compile:
        return None
    try:
        return str(make_compile_cache())
    except (OSError, RuntimeError) as error:
        logger.warning("no folder to share compiled code in, so each worker compiles by itself: %s", error)
        return None


def make_compile_cache() -> Path:
    """The folder where all workers of this user keep what torch.compile made, for this version of torch.

    What lies there is run: nobody else may write to it.
    """
    folder = cache_dir() / "inductor" / importlib.metadata.version("torch")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder
