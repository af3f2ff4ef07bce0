"""From a handler in the notebook to a bundle folder. Runs in the kernel."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nbserve.bundle.bundle import Bundle, FileRecord, Manifest, fingerprint
from nbserve.bundle.checks import observe
from nbserve.capture import library
from nbserve.capture.artifacts import Files, Pickled, npy_chunks
from nbserve.capture.blocks import Block, in_order, older_first, out_of_order
from nbserve.capture.cells import Cells
from nbserve.capture.localfiles import local_files
from nbserve.capture.refusals import refusal
from nbserve.capture.requirements import ALWAYS, requirements
from nbserve.capture.resolver import Resolver
from nbserve.capture.store import Store
from nbserve.errors import CaptureError
from nbserve.handler import Handler

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_EARLY = {"torch", "numpy"}


def capture(
    obj: Any,
    *,
    name: str,
    namespace: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    cell: tuple[str, str] | None = None,
    store: Store | Path | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write a handler class, an nn.Module or a function of a list of requests, with all it names, as a bundle.

    `cell` is (text with the `%%serve` line, label such as "quickstart.ipynb, cell 7"). Raises CaptureError.
    """
    if not _NAME.fullmatch(name):
        raise CaptureError(
            f"{name!r} cannot name an endpoint: use letters, digits, `-`, `_` and `.`, at most 64 of them"
        )
    resolver = Resolver(namespace, Cells(namespace, cell))
    handler = _handler(obj, name, resolver)
    store = store if isinstance(store, Store) else Store(store)
    return _Writer(resolver, handler, store).write(name, dict(settings or {}), _provenance(provenance or {}, cell))


def _handler(obj: Any, name: str, resolver: Resolver) -> Block:
    """The block of the handler class; for a module or a function one that wraps it."""
    if isinstance(obj, type):
        if not issubclass(obj, Handler) and not (hasattr(obj, "initialize") and hasattr(obj, "handle")):
            way_out = "Derive it from nbserve.Handler, or give it initialize(context) and handle(data, context)."
            raise refusal(obj.__name__, "it is no handler", None, way_out)
        return resolver.block_of(obj, obj.__name__, None)
    if isinstance(obj, torch.nn.Module):
        body = "    def initialize(self, context):\n        self.model = {0}.to(context.device).eval()"
    elif isinstance(obj, types.FunctionType):
        body = "    def handle(self, requests, context):\n        return {0}(requests)"
    else:
        raise refusal(name, f"a {type(obj).__name__} is no handler", None, "Serve a class, an nn.Module or a function.")
    bound = _bound_name(obj, resolver.namespace)
    wrapped = resolver.named(bound, None) if bound else resolver.block_of(obj, "model", None)
    title = "".join(part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", name)).lstrip("0123456789")
    text = f"class {title}Handler(nbserve.Handler):\n{body.format(wrapped.name)}"
    return Block(f"{title}Handler", text, first=[Block("nbserve", "import nbserve", is_import=True), wrapped])


def _bound_name(obj: Any, namespace: Mapping[str, Any]) -> str | None:
    names = [name for name, value in namespace.items() if value is obj and name.isidentifier()]
    public = [name for name in names if not name.startswith("_")]
    return next(iter(sorted(public, key=lambda found: found != getattr(obj, "__name__", ""))), None)


def _provenance(given: Mapping[str, Any], cell: tuple[str, str] | None) -> dict[str, str]:
    known = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "nbserve": importlib.metadata.version(ALWAYS),
    }
    if cell is not None:
        known["cell"] = cell[1]
    return {**known, **{key: str(value) for key, value in given.items() if value is not None}}


class _Writer:
    """Writes one bundle; the parts are written in the order in which they depend on each other."""

    def __init__(self, resolver: Resolver, handler: Block, store: Store) -> None:
        self._resolver = resolver
        self._handler = handler
        self._store = store
        self._files: dict[str, FileRecord] = {}
        self._ordered: list[Block] = []

    def write(self, name: str, settings: dict[str, Any], provenance: dict[str, str]) -> Bundle:
        with self._store.new_bundle() as folder:
            manifest = self._write_model(folder)
            older_first(self._resolver.blocks, self._resolver.current())
            self._ordered = in_order(self._handler)
            _refuse_circle(self._ordered)
            manifest["checks"] = self._checks()
            (folder / "app.py").write_text(self._app(name), encoding="utf-8")
            installed, local = library.split(self._resolver.modules)
            library.copy(local, folder / "lib")
            (folder / "requirements.txt").write_text(requirements(installed), encoding="utf-8")
            (folder / "model" / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            handler = f"app:{self._handler.name}"
            version = fingerprint(folder, handler)
            imports = [module for module in installed if module not in _EARLY]
            settings = {key: value for key, value in settings.items() if value is not None}
            bundle = Bundle(folder, name, version, handler, settings, imports, provenance)
            bundle.write_head()
            return dataclasses.replace(bundle, path=self._store.keep(folder, name, version))

    def _write_model(self, folder: Path) -> Manifest:
        """objects.pkl, tensor and array files, copied files; the kernel's observations go into the manifest."""
        (folder / "model").mkdir()
        pickles, files = self._pickles()
        offsets, start = {}, 0
        for name, pickled in pickles.items():
            offsets[name] = [start, len(pickled.data)]
            start += len(pickled.data)
        self._put(folder, "model/objects.pkl", [pickled.data for pickled in pickles.values()])
        contents, records = files.tensors.files()
        for file, chunks in contents.items():
            self._put(folder, f"model/{file}", chunks)
        for file, array in files.arrays:
            self._put(folder, f"model/{file}", npy_chunks(array))
        for file, path in local_files(self._resolver.texts).items():
            self._link(folder, f"files/{file}", path)
        return Manifest(
            files=self._files,
            objects=offsets,
            tensors=records,
            arrays=[file for file, _ in files.arrays],
            checks=[],
        )

    def _pickles(self) -> tuple[dict[str, Pickled], Files]:
        """All artifacts, each named one referred to by its name in the others, so that they stay one object."""
        files, resolver = Files(), self._resolver
        others = {id(obj): block.name for block, (obj, _) in resolver.artifacts.items()}
        blocks = {block.name: block for block in resolver.artifacts}
        pickles: dict[str, Pickled] = {}
        for block in list(resolver.artifacts):
            needed: list[Block] = []
            pickled = pickles[block.name] = resolver.pickle(block, files, others, needed)
            block.first += [blocks[name] for name in pickled.artifacts]
        return pickles, files

    def _checks(self) -> list[dict[str, Any]]:
        named = {id(obj): block.name for block, (obj, _) in self._resolver.artifacts.items()}
        last = {block.name: block for block in self._ordered}
        seen = [(block, observe(block.seen, named)) for block in last.values() if block.seen is not None]
        return [{"name": block.name, "seen": there, "origins": block.origins} for block, there in seen if there]

    def _app(self, name: str) -> str:
        resolver = self._resolver
        head = [
            f'"""The handler of endpoint {name}, written by nbserve: serve the cell again instead of editing this."""'
        ]
        if resolver.annotations_are_text:
            head.append("from __future__ import annotations")
        ordered = list(self._ordered)
        if resolver.artifacts:
            name = "" if resolver.reader == "artifact" else f" as {resolver.reader}"
            reader = Block("", f"from nbserve.bundle.load import artifact{name}", is_import=True)
            ordered.insert(1 if ordered[0].is_import else 0, reader)
        return "\n\n".join([*head, *map(str, ordered)]) + "\n"

    def _put(self, folder: Path, file: str, chunks: list[Any]) -> None:
        if chunks:
            blob = self._store.put(chunks)
            self._store.link(blob, folder / file)
            self._files[file] = FileRecord(sha256=blob.sha256, bytes=blob.size_bytes)

    def _link(self, folder: Path, file: str, path: Path) -> None:
        blob = self._store.put_file(path)
        self._store.link(blob, folder / file)
        self._files[file] = FileRecord(sha256=blob.sha256, bytes=blob.size_bytes)


def _refuse_circle(ordered: list[Block]) -> None:
    """Two objects that hold each other, or one that holds a function made from it, cannot be made one by one."""
    for one, other in out_of_order(ordered):
        way_out = "Put both into one object, such as a dict, and use that."
        raise refusal(one.name, f"it and `{other.name}` refer to each other", None, way_out)
