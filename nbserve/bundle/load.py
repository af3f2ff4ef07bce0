"""From a bundle folder to the handler class. Runs in the worker."""

from __future__ import annotations

import ast
import io
import linecache
import os
import pickle
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbserve.bundle.bundle import Bundle, Manifest, read_manifest
from nbserve.bundle.checks import verify
from nbserve.bundle.markers import Statement, statements
from nbserve.errors import BundleError

if TYPE_CHECKING:
    import numpy
    import torch

    from nbserve.bundle.mapped import MappedFile

LARGE_ARRAY_BYTES = 64 * 1024


def load_handler(path: Path | str) -> type:
    """Import the bundle's app.py as the module `app` and return its handler class.

    Lines and texts in tracebacks are those of the cells. Raises BundleError where the classes differ from what the
    notebook had. Files that the cells name by relative paths lie in files/, which becomes the working folder.
    """
    bundle = Bundle.read(path)
    library = str(bundle.path / "lib")
    if library not in sys.path:
        sys.path.insert(0, library)
    if (bundle.path / "files").is_dir():
        os.chdir(bundle.path / "files")
    module = _import_app(bundle)
    _verify(bundle, module)
    handler = getattr(module, bundle.handler.partition(":")[2])
    if not isinstance(handler, type):
        raise BundleError(f"{bundle.handler} of {bundle.path} is no class")
    return handler


def artifact(name: str) -> Any:
    """An object that was captured from the notebook; app.py calls it."""
    app = sys.modules["app"]
    found = app.__dict__.get("__artifacts__")
    if found is None:
        found = app.__dict__["__artifacts__"] = Artifacts(Path(str(app.__file__)).parent)
    return found.get(name)


def _import_app(bundle: Bundle) -> types.ModuleType:
    module = types.ModuleType("app")
    file = bundle.path / "app.py"
    module.__file__ = str(file)
    module.__dict__["__artifacts__"] = Artifacts(bundle.path)
    source = file.read_text(encoding="utf-8")
    blocks = list(statements(source, str(file)))
    _show_cells(source, blocks)
    flags = _future_flags(blocks)
    sys.modules["app"] = module
    try:
        for block in blocks:
            exec(_compiled(block, str(file), flags), module.__dict__)
    except BaseException:
        del sys.modules["app"]
        raise
    module.__file__ = _home_of(bundle.handler.partition(":")[2], blocks) or str(file)
    return module


def _compiled(block: Statement, file: str, flags: int) -> types.CodeType:
    """The block's code with the cell's name and line numbers."""
    if block.label is not None:
        ast.increment_lineno(block.node, block.cell_line - block.first_line)
    tree = ast.Module([block.node], [])
    code: types.CodeType = compile(tree, block.label or file, "exec", flags=flags, dont_inherit=True)
    return code


def _future_flags(blocks: list[Statement]) -> int:
    import __future__

    wanted = any(isinstance(block.node, ast.ImportFrom) and block.node.module == "__future__" for block in blocks)
    return __future__.annotations.compiler_flag if wanted else 0


def cells_of(source: str, blocks: list[Statement]) -> dict[str, list[str]]:
    """By label, what app.py holds of each cell, every line at its place in the cell."""
    lines = source.splitlines()
    cells: dict[str, list[str]] = {}
    for block in blocks:
        if block.label is not None:
            text = lines[block.first_line - 1 : block.node.end_lineno]
            _place(cells.setdefault(block.label, []), block.cell_line, text)
    return cells


def _show_cells(source: str, blocks: list[Statement]) -> None:
    """Give linecache each cell's lines at their places, so that tracebacks, pdb and inspect find them.

    inspect looks for a class in the file of its module, which becomes the handler's cell: the blocks of other cells
    are put below the last line of each cell, where nothing else is.
    """
    cells = cells_of(source, blocks)
    for label, own in cells.items():
        others = [line for other, text in cells.items() if other != label for line in text if line]
        shown = [f"{line}\n" for line in [*own, "", *others]]
        linecache.cache[label] = (sum(map(len, shown)), None, shown, label)


def _place(lines: list[str], number: int, text: list[str]) -> None:
    lines += [""] * (number - 1 + len(text) - len(lines))
    lines[max(number - 1, 0) : number - 1 + len(text)] = text


def _home_of(handler: str, blocks: list[Statement]) -> str | None:
    return next((block.label for block in blocks if getattr(block.node, "name", None) == handler), None)


def _verify(bundle: Bundle, module: types.ModuleType) -> None:
    manifest = bundle.manifest()
    names = vars(module)
    named = {id(names[name]): name for name in manifest["objects"] if name in names}
    for check in manifest["checks"]:
        verify(check["name"], check["seen"], check.get("origins", {}), names.get(check["name"]), named)


class Artifacts:
    """The objects of one bundle. Tensors and arrays are mapped from their files, each made once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._manifest: Manifest = read_manifest(path)
        self._objects: dict[str, Any] = {}
        self._tensors: dict[int, torch.Tensor] = {}
        self._arrays: dict[int, Any] = {}
        self._maps: dict[str, MappedFile] = {}
        self._pickles = memoryview(self._read_pickles())

    def get(self, name: str) -> Any:
        if name not in self._objects:
            if name not in self._manifest["objects"]:
                raise BundleError(f"{self._path} holds no object {name!r}")
            start, length = self._manifest["objects"][name]
            reader = _Unpickler(io.BytesIO(self._pickles[start : start + length]), self)
            self._objects[name] = reader.load()
            for number, attributes in reader.load().items():
                self.tensor(number).__dict__.update(attributes)
        return self._objects[name]

    def tensor(self, number: int) -> torch.Tensor:
        if number not in self._tensors:
            self._tensors[number] = self._make_tensor(self._manifest["tensors"][number])
        return self._tensors[number]

    def array(self, number: int) -> Any:
        if number not in self._arrays:
            self._arrays[number] = _read_array(self._path / "model" / self._manifest["arrays"][number])
        return self._arrays[number]

    def _make_tensor(self, record: dict[str, Any]) -> torch.Tensor:
        import torch

        from nbserve.bundle.mapped import DTYPES

        tensor = self._map(record["file"]).tensor(record["key"])
        if "shape" in record:
            flat = tensor.view(DTYPES[record["dtype"]])
            tensor = flat.as_strided(record["shape"], record["stride"], record["offset"])
        if record.get("cuda") and torch.cuda.is_available():
            # The worker's own device is the current one, whichever number it had in the notebook.
            tensor = tensor.to("cuda")
        if record.get("parameter"):
            return torch.nn.Parameter(tensor, requires_grad=record.get("grad", False))
        return tensor.requires_grad_() if record.get("grad") else tensor

    def _map(self, file: str) -> MappedFile:
        from nbserve.bundle.mapped import MappedFile

        if file not in self._maps:
            self._maps[file] = MappedFile.open(self._path / "model" / file)
        return self._maps[file]

    def _read_pickles(self) -> bytes:
        file = self._path / "model" / "objects.pkl"
        return file.read_bytes() if self._manifest["objects"] else b""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, artifacts: Artifacts) -> None:
        super().__init__(file)
        self._artifacts = artifacts

    def persistent_load(self, reference: tuple[str, Any]) -> Any:
        kind, what = reference
        if kind == "tensor":
            return self._artifacts.tensor(what)
        if kind == "array":
            return self._artifacts.array(what)
        found: Any = sys.modules["app"]
        for part in what.split("."):
            found = getattr(found, part)
        return found


def _read_array(file: Path) -> numpy.ndarray[Any, Any]:
    import numpy as np

    if file.stat().st_size < LARGE_ARRAY_BYTES:
        array: numpy.ndarray[Any, Any] = np.load(file, allow_pickle=False)
        return array
    # Copy-on-write: the pages are shared between workers until one of them writes.
    mapped: numpy.ndarray[Any, Any] = np.load(file, mmap_mode="c", allow_pickle=False)
    return mapped.view(np.ndarray)
