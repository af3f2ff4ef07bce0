"""All that the files of an export say, decided before the first is written. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# TorchServe's ports, and SageMaker's first.
PORT, MANAGEMENT_PORT, METRICS_PORT = 8080, 8081, 8082
UID = 10001
# Where the image has it.
BUNDLE = "/opt/nbserve/bundle"
VENV = "/opt/nbserve/venv"

Files = Mapping[str, str]
"""Texts by their path in the exported folder."""


@dataclass(frozen=True)
class Plan:
    """What is exported, and where it is to run.

    `name` is the endpoint's, `slug` the same as a DNS label, for Kubernetes and image names. `settings` are all
    settings of the endpoint, `tuned` those that differ from the defaults. `image` is the reference that all files use.
    `model_bytes` is the size of weights and objects, `torch` its version without what follows a plus,
    `index_url` where torch comes from ("": as pip is configured), `python` as in "3.11". `bundle_files` are the paths
    of all that the bundle holds.
    """

    name: str
    slug: str
    version: str
    image: str
    base: str
    python: str
    torch: str
    index_url: str
    is_gpu: bool
    port: int
    settings: Mapping[str, Any]
    tuned: Mapping[str, Any]
    model_bytes: int
    golden_count: int
    wheels: tuple[str, ...] = ()
    has_cache: bool = False
    ignore: tuple[str, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    bundle_files: tuple[str, ...] = ()

    @property
    def workers(self) -> int:
        return int(self.settings["workers"])


def slug_of(name: str) -> str:
    """The name as a DNS label of RFC 1123: at most 63 of a-z, 0-9 and inner dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:63].strip("-") or "endpoint"
