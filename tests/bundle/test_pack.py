"""A bundle as one file: complete, with the settings it is given, and without what is not of it."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbserve.bundle.bundle import Bundle
from nbserve.bundle.pack import pack

CELL = "# %%serve test\nclass Served(nbserve.Handler):\n    model = net\n"


def test_what_is_packed_is_the_bundle(notebook: Any, tmp_path: Path) -> None:
    notebook.run("import torch, nbserve\nnet = torch.nn.Linear(3, 3)", CELL)
    bundle = notebook.serve(settings={"workers": 2})
    bundle.record(b"\xff", "image/png", 200, b"2", "application/json")
    (bundle.path / ".new-x").write_text("half a file")
    (bundle.path / "lib" / "__pycache__").mkdir(parents=True)
    (bundle.path / "lib" / "__pycache__" / "a.pyc").write_bytes(b"")
    packed = io.BytesIO()
    pack(replace(bundle, settings={"workers": 3}), packed)
    packed.seek(0)
    with tarfile.open(fileobj=packed, mode="r:gz") as tar:
        tar.extractall(tmp_path / "out", filter="data")
    [folder] = (tmp_path / "out").iterdir()
    assert folder.name == f"test-{bundle.version}"
    taken = Bundle.read(folder)
    assert taken == replace(bundle, path=folder, settings={"workers": 3})
    taken.check()
    assert taken.golden() == bundle.golden()
    assert Bundle.read(bundle.path).settings == {"workers": 2}
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    kept = {path.relative_to(bundle.path) for path in bundle.path.rglob("*") if path.is_file()}
    assert kept - files == {Path(".new-x"), Path("lib/__pycache__/a.pyc")}
    assert files <= kept
