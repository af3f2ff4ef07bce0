"""What an endpoint's settings are on Ray Serve. Pure, for the terminal and the replica."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nbserve.config import EndpointConfig
from nbserve.errors import ConfigError, RayError

# What Serve's `user_config` carries: a running replica takes it over.
LIVE = ("max_batch_size", "max_batch_delay_ms", "policy", "queue_size", "response_timeout_s", "isolate_errors")
# What makes a replica what it is: others need new replicas.
FIXED = ("device", "threads_per_worker", "compile", "compile_mode", "dtype", "channels_last", "inference_mode")
# One batch runs while the next one gathers.
_BATCHES = 2
# Room for health checks and the like where batches are small.
_LEAST_ONGOING = 8
# Ray's own default; what runs when a replica is stopped has at least that long.
_LEAST_DRAIN_S = 20.0
MAX_AUTOSCALED = 4


def user_config(config: EndpointConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in LIVE}


def fixed(config: EndpointConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in FIXED}


def live_config(config: EndpointConfig, changes: Mapping[str, Any]) -> EndpointConfig:
    """The settings with a `user_config` laid over them; raises ConfigError for one that a replica cannot take over."""
    others = [name for name in changes if name not in LIVE and hasattr(config, name)]
    if others:
        raise ConfigError(f"{others[0]} needs new replicas; what user_config can change is {', '.join(LIVE)}")
    return config.changed(changes)


def batch_wait_s(config: EndpointConfig) -> float:
    """How long `serve.batch` waits for a batch to fill up.

    Adaptive is 0: what comes while a batch runs is the next batch. Ray tells nobody which connections will come back.
    """
    return config.max_batch_delay_ms / 1000 if config.policy == "window" else 0.0


def max_ongoing(config: EndpointConfig) -> int:
    """Requests that a replica has at once. The others wait in Ray's proxies: a lost node does not take them along."""
    return max(_LEAST_ONGOING, _BATCHES * config.max_batch_size)


def threads(config: EndpointConfig, cpus: float) -> int:
    """Threads of the math libraries in a replica: as set, else one for each CPU that Ray reserves for it."""
    return config.threads_per_worker or max(1, int(cpus))


def wants_gpu(config: EndpointConfig) -> bool:
    return config.device.startswith("cuda")


def deployment_options(
    config: EndpointConfig,
    *,
    replicas: int | None = None,
    autoscaling: Mapping[str, Any] | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
) -> dict[str, Any]:
    """The options of the Ray Serve deployment; `replicas` are as many as the endpoint has workers unless it scales."""
    if replicas is not None and autoscaling is not None:
        raise RayError("either a number of replicas or autoscaling, not both")
    if replicas is not None and replicas < 1:
        raise RayError(f"there are to be {replicas} replicas; it takes at least 1")
    reserved = {"num_cpus": cpus if cpus is not None else float(threads(config, 1))}
    if gpus is None:
        gpus = 1.0 if wants_gpu(config) else 0.0
    if gpus:
        reserved["num_gpus"] = gpus
    return {
        **(_scaled(config, autoscaling) if autoscaling is not None else {"num_replicas": replicas or config.workers}),
        "max_ongoing_requests": max_ongoing(config),
        "max_queued_requests": config.queue_size,
        "user_config": user_config(config),
        "graceful_shutdown_timeout_s": max(_LEAST_DRAIN_S, float(math.ceil(config.response_timeout_s))),
        "ray_actor_options": reserved,
    }


def _scaled(config: EndpointConfig, autoscaling: Mapping[str, Any]) -> dict[str, Any]:
    """Ray's autoscaling_config; more replicas come when one has more than a full batch to do, on average."""
    least = autoscaling.get("min_replicas", 1)
    defaults = {
        "min_replicas": least,
        "max_replicas": max(MAX_AUTOSCALED, least),
        "target_ongoing_requests": config.max_batch_size,
    }
    scaling = {**defaults, **autoscaling}
    if not 0 <= scaling["min_replicas"] <= scaling["max_replicas"] or scaling["max_replicas"] < 1:
        raise RayError(
            f"autoscaling from {scaling['min_replicas']} to {scaling['max_replicas']} replicas makes no sense"
        )
    return {"autoscaling_config": scaling}
