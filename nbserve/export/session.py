"""One export, from a bundle to a folder in its place: read, pin, prove, build, write. Runs in the kernel or the CLI."""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.utils import canonicalize_name

from nbserve.bundle.bundle import GOLDEN, Bundle, Golden, golden_text, read_golden
from nbserve.capture.requirements import distributions_of
from nbserve.config import EndpointConfig
from nbserve.errors import ExportError
from nbserve.export import docker, kubernetes, monitoring, rayserve, readme, sbom, sources, wheels
from nbserve.export.build import Image, build
from nbserve.export.builders import find_builder
from nbserve.export.folder import MARKER, Stage, size_text, staged
from nbserve.export.options import ExportOptions
from nbserve.export.plan import Plan, slug_of
from nbserve.export.proof import prove
from nbserve.export.requirements import SELF, Lock, Pin, lock

OnProgress = Callable[[str], None]

# Recorded requests go along up to this size, the newest first.
GOLDEN_BYTES = 32 * 1024 * 1024
# The texts, nbserve's own wheel, and some air.
_BESIDES_BYTES = 32 * 1024 * 1024

_HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Exported:
    """What an export wrote. `proven` is how many recorded requests it answered as in the notebook."""

    path: Path
    plan: Plan
    files: int
    size_bytes: int
    proven: int
    image: str | None = None
    image_bytes: int | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        plan = self.plan
        lines = [
            f"exported {plan.name} {plan.version} to {self.path}: {self.files} files, {size_text(self.size_bytes)}",
            self.proof,
        ]
        if self.image is not None:
            lines.append(f"image {self.image}, {size_text(self.image_bytes or 0)}")
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, "next:", *(f"  {command}" for command in self.commands())])

    @property
    def proof(self) -> str:
        """What was proven, in words."""
        if not self.proven:
            return (
                f"it starts in a clean process; no request was recorded to ask it (%serve predict {self.plan.name} ...)"
            )
        requests = "1 recorded request" if self.proven == 1 else f"{self.proven} recorded requests"
        return f"started in a clean process, it answered {requests} as in the notebook"

    def commands(self, folder: str | Path | None = None) -> tuple[str, ...]:
        """What to do next, with the exported folder called `folder`: build, unless it is built, run and verify."""
        found = readme.commands(self.plan, str(folder or self.path))
        return found if self.image is None else found[1:]


def export(
    bundle: Path | str,
    directory: Path | str,
    options: ExportOptions | None = None,
    on_progress: OnProgress = lambda text: None,
) -> Exported:
    """Write a folder that runs this bundle elsewhere, proven, and with an image where `options.build` names one.

    Raises ExportError; the folder is written whole or not at all. An earlier export in its place is replaced.
    """
    options = options or ExportOptions()
    # An image that nobody here can build is better refused before the work than after it.
    if options.build:
        find_builder()
    head = Bundle.read(bundle)
    on_progress(f"checking the bundle of {head.name}, version {head.version}")
    head.check()
    pairs = _golden(head, options)
    parts = list(_parts(head.path))
    needed = sum(file.stat().st_size for file in parts) + _BESIDES_BYTES
    with staged(Path(directory).expanduser().resolve(), needed) as stage:
        return _Export(head, options, pairs, stage, on_progress).run(parts)


class _Export:
    """The steps of one export, in the order in which they need each other."""

    def __init__(
        self, head: Bundle, options: ExportOptions, pairs: Sequence[Golden], stage: Stage, on_progress: OnProgress
    ) -> None:
        self._head = head
        self._options = options
        self._pairs = pairs
        self._stage = stage
        self._tell = on_progress
        self._notes: list[str] = []
        self._config = EndpointConfig().changed(head.settings)
        self._is_gpu = self._config.device.startswith("cuda") if options.gpu is None else options.gpu
        self._python = ".".join(head.provenance.get("python", _HERE).split(".")[:2])

    def run(self, parts: list[Path]) -> Exported:
        self._copy(parts)
        pinned = self._lock()
        for note in sources.notes(self._head.path / "lib"):
            self._note(note)
        if self._python != _HERE:
            self._note(f"the image has Python {self._python}, as the notebook had; it was proven with Python {_HERE}")
        proven = prove(self._stage.path / "bundle", self._pairs, self._tell, self._options.ignore)
        plan = self._plan(pinned)
        self._write(plan, pinned)
        self._stage.seal()
        image = self._build(plan)
        exported = Exported(
            path=self._stage.target,
            plan=plan,
            files=len(self._stage.files()),
            size_bytes=self._stage.size_bytes(),
            proven=proven,
            image=image.reference if image else None,
            image_bytes=image.size_bytes if image else None,
            notes=tuple(self._notes),
        )
        self._stage.place()
        return exported

    def _copy(self, parts: list[Path]) -> None:
        self._tell(f"copying the bundle, {size_text(sum(file.stat().st_size for file in parts))}")
        self._stage.copy(self._head.path, parts, "bundle")
        wanted = _device(self._config.device, self._options.gpu)
        if wanted != self._config.device:
            what = "with" if self._is_gpu else "without"
            self._note(
                f"device is {wanted!r} in the export, for an image {what} CUDA; here it is {self._config.device!r}"
            )
            copy = Bundle.read(self._stage.path / "bundle")
            copy.with_settings({**copy.settings, "device": wanted})
            self._config = replace(self._config, device=wanted)

    def _lock(self) -> Lock:
        text = (self._head.path / "requirements.txt").read_text(encoding="utf-8")
        names = [line.partition("==")[0] for line in text.splitlines()]
        # The image runs the nbserve that wrote it, whatever wrote the bundle.
        packed = {SELF: Pin(SELF, importlib.metadata.version(SELF))}
        for found in wheels.local_distributions(names):
            pin = wheels.pack(found, self._stage.path / "wheels", self._tell)
            packed[canonicalize_name(pin.name)] = pin
        imported = [name for module in self._head.imports for name in distributions_of(module)]
        pinned = lock(text, is_gpu=self._is_gpu, index_url=self._options.index_url, wheels=packed, imports=imported)
        for note in (*pinned.notes, *wheels.notes(pinned.pins)):
            self._note(note)
        return pinned

    def _plan(self, pinned: Lock) -> Plan:
        head, slug = self._head, slug_of(self._head.name)
        copied = self._stage.files("bundle")
        has_cache = any(file.startswith("cache/") for file in copied)
        return Plan(
            name=head.name,
            slug=slug,
            version=head.version,
            image=self._options.build or f"{slug}:{head.version}",
            # Also with a cache: on another processor it compiles, and would fail at its first request.
            base=self._options.base or docker.base(self._python, self._config.compile == "inductor"),
            python=self._python,
            torch=pinned.torch,
            index_url=pinned.index_url,
            is_gpu=self._is_gpu,
            port=self._options.port,
            settings=self._config.as_dict(),
            tuned=self._config.tuned(),
            model_bytes=sum(record["bytes"] for record in head.manifest()["files"].values()),
            golden_count=len(self._pairs),
            ignore=self._options.ignore,
            wheels=tuple(sorted(pin.wheel for pin in pinned.pins if pin.wheel)),
            has_cache=has_cache,
            provenance=head.provenance,
            bundle_files=tuple(copied),
        )

    def _write(self, plan: Plan, pinned: Lock) -> None:
        self._tell("writing the files for Docker, Kubernetes and Ray Serve")
        self._stage.write({"requirements.lock": pinned.text, GOLDEN: golden_text(self._pairs)})
        for renderer in (docker, readme, kubernetes, monitoring, rayserve):
            self._stage.write(renderer.files(plan))
        digests = {
            file: hashlib.sha256((self._stage.path / "wheels" / file).read_bytes()).hexdigest() for file in plan.wheels
        }
        self._stage.write(sbom.files(plan, pinned.pins, self._head.manifest()["files"], digests))

    def _build(self, plan: Plan) -> Image | None:
        tag = self._options.build
        return build(self._stage.path, plan, tag, self._tell) if tag else None

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._tell(text)


def _golden(head: Bundle, options: ExportOptions) -> list[Golden]:
    """The requests to prove it with: those of a file, else the newest recorded ones, oldest first.

    The bundle of an earlier export has its requests beside it.
    """
    if options.golden is not None:
        try:
            return read_golden(options.golden)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ExportError(f"{options.golden} cannot be read: {reason}") from None
    kept: list[Golden] = []
    left = GOLDEN_BYTES
    beside = head.path.parent / GOLDEN
    is_exported = (head.path.parent / MARKER).is_file() and beside.is_file()
    for pair in reversed(read_golden(beside) if is_exported else head.golden()):
        left -= len(pair.request_body) + len(pair.answer_body)
        if left < 0:
            break
        kept.insert(0, pair)
    return kept


def _parts(bundle: Path) -> Iterator[Path]:
    """The files of a bundle that go along."""
    for path in sorted(bundle.rglob("*")):
        is_fleeting = path.name.startswith(".new-") or "__pycache__" in path.parts
        if path.is_file() and not is_fleeting and path != bundle / GOLDEN:
            yield path


def _device(device: str, gpu: bool | None) -> str:
    """The setting as it makes sense in a container: as tuned, unless the wish for a GPU, or for none, is against it."""
    if device == "mps" or (device == "cpu" and gpu):
        return "auto"
    return "cpu" if device.startswith("cuda") and gpu is False else device
