"""Packages that no index has become wheels: whole, installable, and the same bytes each time."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import pytest

from nbserve.errors import ExportError
from nbserve.export import wheels
from nbserve.export.requirements import Pin

WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py2-none-any\nTag: py3-none-any\n"
Told = list[str]


def _quiet(text: str) -> None:
    pass


def _install(site: Path, files: dict[str, str], origin: dict[str, Any] | None, **about: str) -> Distribution:
    """A distribution as an installer leaves it, without RECORD's hashes."""
    info = "mine_tools-1.2.dist-info"
    known = {
        "METADATA": "Metadata-Version: 2.1\nName: mine.tools\nVersion: 1.2\n",
        "WHEEL": WHEEL,
        "INSTALLER": "pip\n",
    }
    contents = files | {f"{info}/{name}": text for name, text in {**known, **about}.items()}
    if origin is not None:
        contents[f"{info}/direct_url.json"] = json.dumps(origin)
    contents[f"{info}/RECORD"] = "".join(f'"{name}",,\n' for name in [*contents, f"{info}/RECORD"])
    for name, text in contents.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    return Distribution.at(site / info)


def _check_record(file: Path) -> list[str]:
    """The names in a wheel, after RECORD was compared with each of them."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        (record,) = [name for name in names if name.endswith(".dist-info/RECORD")]
        rows = list(csv.reader(archive.read(record).decode().splitlines()))
        assert [row[0] for row in rows] == names
        for name, digest, size in rows[:-1]:
            data = archive.read(name)
            found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (digest, size) == (f"sha256={found}", str(len(data)))
        return names


def test_nbserve_is_packed_from_its_sources_and_the_same_twice(tmp_path: Path) -> None:
    told: Told = []
    (found,) = wheels.local_distributions(["nbserve-torch", "torch", "numpy"])
    one = wheels.pack(found, tmp_path / "one", told.append)
    two = wheels.pack(found, tmp_path / "two", told.append)
    assert one == two == Pin("nbserve-torch", found.version, f"nbserve_torch-{found.version}-py3-none-any.whl")
    first, second = (tmp_path / folder / str(one.wheel) for folder in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
    names = _check_record(first)
    assert {"nbserve/__init__.py", "nbserve/export/templates/Dockerfile", "nbserve/py.typed"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or "direct_url" in name or name.endswith(".pth")]
    assert told[0] == "packing nbserve-torch, which comes from no package index"


@pytest.mark.process
def test_pip_installs_nbserves_wheel_without_an_index(tmp_path: Path) -> None:
    (found,) = wheels.local_distributions(["nbserve-torch"])
    pin = wheels.pack(found, tmp_path / "wheels", _quiet)
    (tmp_path / "requirements.lock").write_text(f"{pin.line}\n")
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", "site"]
    subprocess.run(
        [*pip, "--requirement", "requirements.lock"], cwd=tmp_path, check=True, capture_output=True, timeout=120
    )
    made = next(iter(Distribution.discover(name="nbserve-torch", path=[str(tmp_path / "site")])))
    assert ("nbserve", "nbserve.cli:main") in [(entry.name, entry.value) for entry in made.entry_points]
    assert set(made.entry_points) == set(found.entry_points)
    assert made.requires == found.requires
    assert (tmp_path / "site" / "bin" / "nbserve").exists()


def test_what_pip_installed_from_a_folder_goes_back_into_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "lib" / "python" / "site-packages"
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    files = {
        "mine/__init__.py": "x = 1\n",
        "mine/__pycache__/__init__.cpython-311.pyc": "compiled",
        "../../../bin/mine": "made by pip",
        "../../../bin/mine.sh": "#!/somewhere/bin/python\nprint(1)\n",
        "../../../share/mine/data,1.txt": "data",
    }
    entry = "[console_scripts]\nmine = mine:main\n"
    found = _install(site, files, {"url": "file:///x", "dir_info": {}}, **{"entry_points.txt": entry})
    pin = wheels.pack(found, tmp_path / "wheels", _quiet)
    assert pin == Pin("mine.tools", "1.2", "mine_tools-1.2-py2.py3-none-any.whl")
    assert _check_record(tmp_path / "wheels" / str(pin.wheel)) == [
        "mine/__init__.py",
        "mine_tools-1.2.data/data/share/mine/data,1.txt",
        "mine_tools-1.2.data/scripts/mine.sh",
        "mine_tools-1.2.dist-info/METADATA",
        "mine_tools-1.2.dist-info/WHEEL",
        "mine_tools-1.2.dist-info/entry_points.txt",
        "mine_tools-1.2.dist-info/RECORD",
    ]
    with zipfile.ZipFile(tmp_path / "wheels" / str(pin.wheel)) as archive:
        assert archive.read("mine_tools-1.2.data/scripts/mine.sh") == b"#!python\nprint(1)\n"


def test_a_package_whose_files_are_gone_is_named(tmp_path: Path) -> None:
    found = _install(tmp_path, {"mine/__init__.py": ""}, {"url": "file:///x", "dir_info": {}})
    (tmp_path / "mine" / "__init__.py").unlink()
    with pytest.raises(ExportError, match=r"mine.tools is not as it was installed \(.*mine/__init__.py\)"):
        wheels.pack(found, tmp_path / "wheels", _quiet)


BACKEND = """
import os, zipfile
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    assert os.environ["SOURCE_DATE_EPOCH"]
    if os.path.exists("broken"):
        raise SystemExit("the source is broken")
    with zipfile.ZipFile(os.path.join(wheel_directory, "mine_tools-1.2-py3-none-any.whl"), "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
    return "mine_tools-1.2-py3-none-any.whl"
FILES = {
    "zz_mine.py": "x = 1",
    "mine_tools-1.2.dist-info/METADATA": "Metadata-Version: 2.1\\nName: mine.tools\\nVersion: 1.2\\n",
    "mine_tools-1.2.dist-info/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    "mine_tools-1.2.dist-info/RECORD": "",
}
"""


@pytest.mark.process
def test_an_editable_package_is_built_from_its_folder(tmp_path: Path) -> None:
    source = tmp_path / "my source"
    source.mkdir()
    (source / "backend.py").write_text(BACKEND)
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "mine.tools"\nversion = "1.2"\n'
    )
    origin = {"url": source.as_uri(), "dir_info": {"editable": True}}
    found = _install(tmp_path / "site", {"mine.pth": str(source)}, origin)
    one, two = (wheels.pack(found, tmp_path / folder, _quiet) for folder in ("one", "two"))
    assert one == two == Pin("mine.tools", "1.2", "mine_tools-1.2-py3-none-any.whl")
    assert "zz_mine.py" in _check_record(tmp_path / "one" / str(one.wheel))
    assert (tmp_path / "one" / str(one.wheel)).read_bytes() == (tmp_path / "two" / str(one.wheel)).read_bytes()
    (source / "broken").write_text("")
    with pytest.raises(ExportError, match=r"mine.tools is installed from .*my source, and no wheel can be made of it"):
        wheels.pack(found, tmp_path / "three", _quiet)


def test_what_conda_installed_is_told_and_not_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _install(tmp_path, {"mine.py": ""}, {"url": "file:///home/conda/work"}, INSTALLER="conda\n")
    known = {"mine.tools": found, "torch": distribution("torch")}
    monkeypatch.setattr(wheels, "_installed", known.get)
    assert wheels.local_distributions(["mine.tools", "torch", "unknown"]) == []
    torch = Pin("torch", distribution("torch").version.partition("+")[0])
    assert wheels.notes([Pin("mine.tools", "1.2"), torch, Pin("unknown", "1")]) == [
        "from conda here, from a package index in the image: mine.tools"
    ]


def test_other_versions_than_those_of_the_bundle_are_told() -> None:
    (note,) = wheels.notes([Pin("numpy", "1.0")])
    assert note.startswith("proven with other versions than those of the bundle, which the image has: numpy 1.0 (")


def test_packages_that_pip_would_not_install_together_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = (
        "Metadata-Version: 2.1\nName: mine.tools\nVersion: 1.2\nRequires-Dist: numpy<2\n"
        "Requires-Dist: scipy>9; extra == 'x'\n"
        "Requires-Dist: torch>=99; python_version < '3'\nRequires-Dist: Other.Thing>=1\n"
    )
    found = _install(tmp_path, {"mine.py": ""}, None, METADATA=about)
    monkeypatch.setattr(wheels, "_installed", {"mine.tools": found}.get)
    pins = [
        Pin("mine.tools", "1.2"),
        Pin("numpy", "2.3.1"),
        Pin("torch", "2"),
        Pin("scipy", "1"),
        Pin("other-thing", "1rc1"),
    ]
    assert wheels.notes(pins) == [
        "pip may refuse to install these together in the image: mine.tools 1.2 needs numpy<2, and 2.3.1 is pinned; "
        "mine.tools 1.2 needs Other.Thing>=1, and 1rc1 is pinned"
    ]
    assert wheels.notes([Pin("mine.tools", "1.2"), Pin("numpy", "1.26.4")]) == []
