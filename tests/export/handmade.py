"""Bundles written by hand, which nothing can serve, and plans with any field changed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbserve.bundle.bundle import Bundle, fingerprint
from nbserve.capture.requirements import requirements
from nbserve.export import docker
from nbserve.export.plan import Plan
from tests.export.plans import make_plan

APP = """import nbserve


class Digits(nbserve.Handler):
    def handle(self, requests, context):
        return requests
"""


def make_bundle(path: Path, files: dict[str, bytes] | None = None, **settings: Any) -> Bundle:
    """A bundle of these files, with the pins of this environment."""
    contents = {"model/net.safetensors": b"weights", "model/objects.pkl": b"pickle", **(files or {})}
    for name, content in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    records = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in contents.items()
        if name.startswith(("model/", "files/"))
    }
    manifest = {"files": records, "objects": {}, "tensors": [], "arrays": [], "checks": []}
    (path / "model" / "manifest.json").write_text(json.dumps(manifest))
    (path / "app.py").write_text(APP)
    (path / "requirements.txt").write_text(requirements(["torch"]))
    provenance = {
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "cell": "test.ipynb, cell 2",
    }
    handler = "app:Digits"
    bundle = Bundle(path, "digits", fingerprint(path, handler), handler, settings, [], provenance)
    bundle.write_head()
    return bundle


def plan(settings: dict[str, Any] | None = None, **fields: Any) -> Plan:
    """A plan with these settings of the endpoint, and these fields."""
    known = {"base": docker.base("3.11"), "index_url": "https://download.pytorch.org/whl/cpu", "bundle_files": TEXTS}
    return replace(make_plan(**(settings or {})), **{**known, **fields})


TEXTS = ("app.py", "model/manifest.json", "nbserve.toml", "requirements.txt")
