"""The files of an export for Ray Serve: the application and its Serve config. Pure but for reading a bundle's head."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbserve.bundle.bundle import Bundle
from nbserve.config import EndpointConfig
from nbserve.export.plan import Files, Plan, slug_of
from nbserve.export.texts import filled, yaml_text
from nbserve.ray import mapping
from nbserve.ray.options import RayOptions


def files(plan: Plan) -> Files:
    config = EndpointConfig(**plan.settings)
    options = mapping.deployment_options(config, gpus=1.0 if plan.is_gpu else 0.0)
    return {
        "ray_app.py": filled("ray/ray_app.py", name=_in_docstring(plan.name), version=plan.version),
        "ray_serve.yaml": _config(plan.name, plan.version, plan.python, config, options, port=plan.port),
    }


def config_text(bundle: Path, asked: RayOptions) -> str:
    """A Serve config for a bundle that all nodes have at its path."""
    found = Bundle.read(bundle)
    config = EndpointConfig().changed({**found.settings, **asked.settings})
    return _config(
        found.name,
        found.version,
        ".".join(platform.python_version_tuple()[:2]),
        config,
        asked.deployment_options(config),
        port=asked.port,
        host=asked.host,
        application=asked.name,
        route_prefix=asked.route_prefix,
        path=found.path,
        settings=asked.settings,
    )


def _config(
    name: str,
    version: str,
    python: str,
    config: EndpointConfig,
    options: Mapping[str, Any],
    *,
    port: int,
    host: str = "0.0.0.0",
    application: str | None = None,
    route_prefix: str = "/",
    path: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> str:
    reserved = options["ray_actor_options"]
    scaling = options.get("autoscaling_config")
    return filled(
        "ray/ray_serve.yaml",
        name=yaml_text(name),
        application=yaml_text(application or name),
        title=" ".join(name.split()),
        slug=slug_of(name),
        version=version,
        python=python,
        host=yaml_text(host),
        port=port,
        route_prefix=yaml_text(route_prefix),
        path=path and yaml_text(str(path)),
        settings=json.dumps(dict(settings or {})),
        scaling=scaling and json.dumps(scaling),
        replicas=options.get("num_replicas"),
        most_replicas=max(mapping.MAX_AUTOSCALED, config.workers),
        max_batch_size=config.max_batch_size,
        max_ongoing=options["max_ongoing_requests"],
        max_queued=options["max_queued_requests"],
        drain_s=f"{options['graceful_shutdown_timeout_s']:g}",
        cpus=f"{reserved['num_cpus']:g}",
        gpus=f"{reserved['num_gpus']:g}" if "num_gpus" in reserved else "",
        user_config="\n".join(f"          {key}: {_yaml(value)}" for key, value in options["user_config"].items()),
    )


def _yaml(value: str | float | bool) -> str:
    return yaml_text(value) if isinstance(value, str) else json.dumps(value)


def _in_docstring(name: str) -> str:
    return " ".join(name.split()).replace("\\", "\\\\").replace('"', "'")
