"""The files of an export for Ray Serve: the application and its Serve config. Pure."""

from __future__ import annotations

from nbserve.config import EndpointConfig
from nbserve.export.plan import Files, Plan
from nbserve.export.texts import filled, yaml_text
from nbserve.ray import mapping


def files(plan: Plan) -> Files:
    config = EndpointConfig(**plan.settings)
    options = mapping.deployment_options(config, gpus=1.0 if plan.is_gpu else 0.0)
    live = "\n".join(f"          {name}: {_yaml(value)}" for name, value in options["user_config"].items())
    return {
        "ray_app.py": filled("ray/ray_app.py", name=_in_docstring(plan.name), version=plan.version),
        "ray_serve.yaml": filled(
            "ray/ray_serve.yaml",
            name=yaml_text(plan.name),
            title=" ".join(plan.name.split()),
            slug=plan.slug,
            version=plan.version,
            python=plan.python,
            port=plan.port,
            replicas=options["num_replicas"],
            most_replicas=max(mapping.MAX_AUTOSCALED, plan.workers),
            max_batch_size=config.max_batch_size,
            max_ongoing=options["max_ongoing_requests"],
            max_queued=options["max_queued_requests"],
            drain_s=f"{options['graceful_shutdown_timeout_s']:g}",
            cpus=f"{options['ray_actor_options']['num_cpus']:g}",
            is_gpu=plan.is_gpu,
            user_config=live,
        ),
    }


def _yaml(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return yaml_text(value) if isinstance(value, str) else repr(value)


def _in_docstring(name: str) -> str:
    return " ".join(name.split()).replace("\\", "\\\\").replace('"', "'")
