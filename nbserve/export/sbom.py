"""The bill of materials of an export, as CycloneDX: every package, with its licence, and every file of the model."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from packaging.utils import canonicalize_name

from nbserve.bundle.bundle import FileRecord
from nbserve.export.plan import Files, Plan
from nbserve.export.requirements import SELF, Pin

FILE = "sbom.cdx.json"
# A licence's whole text stands where others have its name; only a name is worth repeating.
_LONGEST_NAME = 100

Component = dict[str, Any]


def files(plan: Plan, pins: Sequence[Pin], model: Mapping[str, FileRecord], wheels: Mapping[str, str]) -> Files:
    """`model` are the records of the bundle's manifest, `wheels` the sha256 of each file in wheels/.

    It is the same for the same content: there is no time in it, and its number is made from what it says.
    """
    components = [*(_package(pin, wheels) for pin in pins), *(_file(*item) for item in sorted(model.items()))]
    content = {
        "metadata": {"tools": {"components": [_tool()]}, "component": _endpoint(plan)},
        "components": components,
        "dependencies": [
            {"ref": _reference(plan), "dependsOn": sorted(component["bom-ref"] for component in components)}
        ],
    }
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    head = {"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{number}", "version": 1}
    return {FILE: json.dumps({**head, **content}, indent=1, ensure_ascii=False) + "\n"}


def licences(name: str) -> list[dict[str, Any]]:
    """What the package's metadata says, as CycloneDX has it; nothing where it is not installed here."""
    try:
        metadata = importlib.metadata.distribution(name).metadata
    except importlib.metadata.PackageNotFoundError:
        return []
    if expressions := metadata.get_all("License-Expression"):
        return [{"expression": expressions[0]}]
    classified = [text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier") or () if _is_licence(text)]
    named = "".join(metadata.get_all("License") or ()).strip()
    is_name = named not in ("", "UNKNOWN") and len(named) <= _LONGEST_NAME and "\n" not in named
    return [{"license": {"name": text}} for text in ([named] if is_name else sorted(set(classified)))]


def _is_licence(classifier: str) -> bool:
    return classifier.startswith("License :: ") and not classifier.endswith(":: OSI Approved")


def _package(pin: Pin, wheels: Mapping[str, str]) -> Component:
    purl = f"pkg:pypi/{canonicalize_name(pin.name)}@{pin.version.replace('+', '%2B')}"
    component: Component = {
        "type": "library",
        "bom-ref": purl,
        "name": pin.name,
        "version": pin.version,
        "purl": purl,
    }
    if pin.wheel is not None:
        component["hashes"] = [{"alg": "SHA-256", "content": wheels[pin.wheel]}]
    if found := licences(pin.name):
        component["licenses"] = found
    return component


def _file(path: str, record: FileRecord) -> Component:
    is_weights = path.endswith((".safetensors", ".npy"))
    return {
        "type": "machine-learning-model" if is_weights else "file",
        "bom-ref": f"bundle/{path}",
        "name": f"bundle/{path}",
        "hashes": [{"alg": "SHA-256", "content": record["sha256"]}],
        "properties": [{"name": "nbserve:bytes", "value": str(record["bytes"])}],
    }


def _tool() -> Component:
    return {"type": "application", "name": SELF, "version": _own_version()}


@functools.cache
def _own_version() -> str:
    return importlib.metadata.version(SELF)


def _endpoint(plan: Plan) -> Component:
    told = [{"name": f"nbserve:{key}", "value": value} for key, value in sorted(plan.provenance.items())]
    named: Component = {"type": "application", "bom-ref": _reference(plan), "name": plan.name, "version": plan.version}
    return {**named, "properties": told} if told else named


def _reference(plan: Plan) -> str:
    return f"{plan.name}@{plan.version}"
