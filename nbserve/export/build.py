"""From an exported folder to an image, with docker, podman or buildah. Runs in the kernel or the CLI."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from nbserve.errors import ExportError
from nbserve.export.builders import Builder, ask, find_builder, size_of
from nbserve.export.buildlog import clean, explain, progress
from nbserve.export.pipsettings import PipSettings, offers_torch, parse
from nbserve.export.plan import Plan

# The index that everybody is sent to, unless pip has an own one here.
PYTORCH_INDEX = "https://download.pytorch.org/"
STOP_TIME_S = 10.0
PIP_LIMIT_S = 60.0
_KEPT_LINES = 400
# BuildKit takes no larger secret.
_SECRET_BYTES = 500 * 1024


@dataclass(frozen=True)
class Image:
    """An image that was built; `size_bytes` is what it takes unpacked."""

    reference: str
    size_bytes: int

    def __str__(self) -> str:
        return f"{self.reference} ({self.size_bytes / 1e9:.2f} GB)"


def build(folder: Path, plan: Plan, tag: str, on_progress: Callable[[str], None] = lambda _: None) -> Image:
    """Build the image of an exported folder; raises ExportError with the reason when that fails.

    pip's settings of this machine go along as a secret, so that the builder finds the same packages. Nothing of them
    is in the image.
    """
    builder = find_builder()
    on_progress(f"{builder.name} builds {tag}")
    pip = pip_settings()
    arguments = _arguments(plan, pip, on_progress)
    if not builder.can_mount:
        if unseen := [path for path in pip.paths if path != pip.certificate]:
            on_progress(f"{builder.name} cannot see what pip's settings name here: {', '.join(map(str, unseen))}")
            arguments = {}
        pip = pip.without_paths()
    with _secret(pip.text) as secret:
        command = builder.build(folder, tag, secret, pip, arguments, os.environ)
        code, lines = _run(command, builder.environment(os.environ), on_progress)
    if code:
        raise ExportError(explain(lines, tag, plan.base))
    return Image(tag, _size(builder, tag))


def pip_settings() -> PipSettings:
    """Those of the pip that belongs to this Python; an environment without pip has none."""
    found = parse(_pip("config", "list"))
    # pip passes over a folder that is not there; a builder would not.
    trusted = found.certificate
    certificate = trusted if trusted and trusted.exists() and trusted.stat().st_size <= _SECRET_BYTES else None
    return replace(found, paths=tuple(path for path in found.paths if path.exists()), certificate=certificate)


def _arguments(plan: Plan, pip: PipSettings, on_progress: Callable[[str], None]) -> Mapping[str, str]:
    """Where pip's own index has that build of torch, PyTorch's is not asked: often it cannot be reached then."""
    if not (plan.index_url.startswith(PYTORCH_INDEX) and pip.names_index):
        return {}
    if not offers_torch(_pip("index", "versions", "torch"), plan.torch, plan.is_gpu):
        return {}
    on_progress(f"torch comes from where pip is configured to look here, not from {plan.index_url}")
    return {"TORCH_INDEX": ""}


def _pip(*words: str) -> str:
    """What pip prints; nothing where there is no pip, or it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    try:
        asked = ask(command, os.environ, PIP_LIMIT_S)
    except subprocess.TimeoutExpired:
        return ""
    return asked.stdout if asked.returncode == 0 else ""


@contextmanager
def _secret(text: str) -> Iterator[Path]:
    """A file for this user's eyes alone: an index's address may hold a password."""
    with tempfile.TemporaryDirectory(prefix="nbserve-build-") as folder:
        path = Path(folder, "pip.conf")
        path.touch(mode=0o600)
        path.write_text(text)
        yield path


def _run(
    command: Sequence[str], environment: Mapping[str, str], on_progress: Callable[[str], None]
) -> tuple[int, Sequence[str]]:
    """Run a builder to its end; gives its exit code and last lines. An interrupt stops it and all that it started."""
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=dict(environment),
        start_new_session=True,
    ) as child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                kept.append(clean(line))
                if news := progress(kept[-1]):
                    on_progress(news)
            return child.wait(), list(kept)
        except BaseException:
            _stop(child)
            raise


def _stop(child: subprocess.Popen[str]) -> None:
    """The whole group: what installs packages is a grandchild."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
            child.wait(STOP_TIME_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _size(builder: Builder, tag: str) -> int:
    asked = ask(builder.inspect(tag), os.environ)
    if asked.returncode:
        raise ExportError(f"{tag} was built, but {builder.name} does not find it: {asked.stderr.strip()}")
    return size_of(asked.stdout)
