"""From a bundle to a Ray Serve application. Runs in the kernel, the terminal, or the task in which Serve builds it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import serve

from nbserve.bundle.bundle import Bundle
from nbserve.config import EndpointConfig
from nbserve.ray import mapping
from nbserve.ray.replica import Replica


def build(
    bundle_path: str | os.PathLike[str],
    *,
    settings: Mapping[str, Any] | None = None,
    replicas: int | None = None,
    autoscaling: Mapping[str, Any] | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    name: str | None = None,
    place: str | None = None,
) -> serve.Application:
    """See `nbserve.ray.application`; `place` is where the replicas have the bundle, when that is not here."""
    bundle = Bundle.read(Path(bundle_path))
    config = EndpointConfig().changed({**bundle.settings, **(settings or {})})
    options = mapping.deployment_options(config, replicas=replicas, autoscaling=autoscaling, cpus=cpus, gpus=gpus)
    deployment = serve.deployment(Replica, name=name or bundle.name, **options, **_retries())
    # Only what needs new replicas: with an argument that differs Ray would replace them.
    application: serve.Application = deployment.bind(place or _place(bundle.path), mapping.fixed(config))
    return application


def _retries() -> dict[str, int]:
    """What cannot start is said at once, not after 20 tries, where this release of Ray lets us choose."""
    name = "max_constructor_retry_count"
    return {name: 1} if name in inspect.signature(serve.deployment).parameters else {}


def _place(path: Path) -> str:
    """A path that holds on other nodes too: relative where the bundle lies in what Ray takes to them."""
    if ray.is_initialized() and ray.get_runtime_context().runtime_env.get("working_dir"):
        folder = Path.cwd()
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return str(path)
