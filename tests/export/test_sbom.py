"""The bill of materials: valid CycloneDX, complete, and the same for the same content."""

from __future__ import annotations

import json
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from nbserve.bundle.bundle import FileRecord
from nbserve.capture.requirements import requirements
from nbserve.export import sbom
from nbserve.export.requirements import Pin, lock
from tests.export.handmade import plan

MODEL = {
    "model/net.safetensors": FileRecord(sha256="ab" * 32, bytes=7),
    "model/objects.pkl": FileRecord(sha256="cd" * 32, bytes=6),
}
WHEEL = Pin("nbserve-torch", "0.1.0", "nbserve_torch-0.1.0-py3-none-any.whl")
PROVENANCE = {"python": "3.11.2", "cell": "test.ipynb, cell 2"}


def _text() -> str:
    pins = lock(requirements(["torch", "sklearn"]), is_gpu=False, wheels={WHEEL.name: WHEEL}).pins
    (text,) = sbom.files(plan(provenance=PROVENANCE), pins, MODEL, {str(WHEEL.wheel): "ef" * 32}).values()
    return text


def _components() -> dict[str, dict[str, Any]]:
    return {component["name"]: component for component in json.loads(_text())["components"]}


def test_it_is_valid_cyclonedx() -> None:
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(_text()) is None


def test_an_invalid_one_would_be_seen() -> None:
    broken = _text().replace('"library"', '"book"', 1)
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(broken) is not None


def test_every_package_has_its_address_and_its_licence() -> None:
    components = _components()
    assert components["torch"]["purl"].startswith("pkg:pypi/torch@")
    assert "+" not in components["torch"]["purl"]
    assert components["scikit-learn"]["purl"].startswith("pkg:pypi/scikit-learn@")
    libraries = [component for component in components.values() if component["type"] == "library"]
    assert [component["name"] for component in libraries if "licenses" not in component] == []
    assert components["nbserve-torch"]["licenses"] == [{"expression": "Apache-2.0"}]
    assert components["nbserve-torch"]["hashes"] == [{"alg": "SHA-256", "content": "ef" * 32}]


def test_the_files_of_the_model_are_named_with_their_content() -> None:
    components = _components()
    weights = components["bundle/model/net.safetensors"]
    assert weights["type"] == "machine-learning-model"
    assert weights["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert components["bundle/model/objects.pkl"]["type"] == "file"


def test_it_knows_no_time_and_its_number_is_made_from_its_content() -> None:
    bill = json.loads(_text())
    assert _text() == _text()
    assert "timestamp" not in bill["metadata"]
    other = json.loads(sbom.files(plan(), [], MODEL, {})[sbom.FILE])
    assert other["serialNumber"] != bill["serialNumber"]
    (root,) = bill["dependencies"]
    assert set(root["dependsOn"]) == {component["bom-ref"] for component in bill["components"]}
