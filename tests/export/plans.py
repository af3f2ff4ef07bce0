"""Plans of exports as the renderers get them."""

from __future__ import annotations

from typing import Any

from nbserve.config import EndpointConfig
from nbserve.export.plan import Plan, slug_of


def make_plan(name: str = "digits", *, image: str = "digits:3f9c2a", version: str = "3f9c2a", **changes: Any) -> Plan:
    """A plan; what is no field of it is a setting of the endpoint."""
    own = {field: changes.pop(field) for field in ("is_gpu", "port", "model_bytes") if field in changes}
    config = EndpointConfig().changed(changes)
    return Plan(
        name=name,
        slug=slug_of(name),
        version=version,
        image=image,
        base="docker.io/library/python:3.11-slim-bookworm",
        python="3.11",
        torch="2.9.0",
        index_url="",
        settings=config.as_dict(),
        tuned=config.tuned(),
        golden_count=3,
        **{"is_gpu": False, "port": 8080, "model_bytes": 300 * 1024**2, **own},
    )
