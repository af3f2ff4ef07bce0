"""How a bundle is to run on a Ray cluster, and what runs there then. Pure; the kernel and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbserve.config import EndpointConfig
from nbserve.ray import mapping


@dataclass(frozen=True)
class RayOptions:
    """Where and how to deploy.

    `address` is the cluster's ("auto": the one that runs on this machine), `name` the application's (None: as the
    endpoint is called). `replicas` is their number; `min_replicas` and `max_replicas` let Ray choose it. `cpus` and
    `gpus` are reserved for each. `host` and `port` count only where Serve does not listen yet. With `in_place` the
    bundle is not taken to the nodes: all of them have it at its path. `settings` are laid over the bundle's.
    """

    address: str = "auto"
    name: str | None = None
    route_prefix: str = "/"
    replicas: int | None = None
    min_replicas: int | None = None
    max_replicas: int | None = None
    cpus: float | None = None
    gpus: float | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    in_place: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def autoscaling(self) -> dict[str, int] | None:
        """Ray's autoscaling_config, None for a fixed number of replicas."""
        given = {"min_replicas": self.min_replicas, "max_replicas": self.max_replicas}
        return {name: value for name, value in given.items() if value is not None} or None

    def deployment_options(self, config: EndpointConfig) -> dict[str, Any]:
        return mapping.deployment_options(
            config, replicas=self.replicas, autoscaling=self.autoscaling, cpus=self.cpus, gpus=self.gpus
        )


@dataclass(frozen=True)
class Deployed:
    """An application that runs. `url` is where predictions are asked for, at a proxy of the cluster."""

    name: str
    endpoint: str
    version: str
    url: str
    replicas: int

    def __str__(self) -> str:
        count = "1 replica" if self.replicas == 1 else f"{self.replicas} replicas"
        return f"{self.endpoint} {self.version} runs on Ray: {count}, predictions at {self.url}"
