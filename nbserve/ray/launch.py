"""Deploys in a process of its own, so that Ray stays out of the kernel. Runs in the kernel."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import orjson

from nbserve.errors import RayError
from nbserve.ray.options import Deployed, RayOptions

_PREFIX = "nbserve: "


def launch(bundle: Path, options: RayOptions, on_progress: Callable[[str], None]) -> Deployed:
    """Run `nbserve ray deploy`; raises RayError with what it says when it fails."""
    command = [sys.executable, "-m", "nbserve", "ray", "deploy", str(bundle), "--json", *_words(options)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stderr is not None
            said = list(_heard(child.stderr, on_progress))
            answer = child.stdout.read()
        except BaseException:
            child.terminate()
            raise
    if child.returncode:
        raise RayError(_reason(said))
    return Deployed(**orjson.loads(answer))


def _words(options: RayOptions) -> Iterator[str]:
    """The command line that says these options."""
    for field in fields(RayOptions):
        value = getattr(options, field.name)
        option = f"--{field.name.replace('_', '-')}"
        if field.name == "settings":
            yield from (word for name, each in value.items() for word in _setting(name, each))
        elif isinstance(value, bool):
            yield from [option] * value
        elif value is not None:
            yield f"{option}={value}"


def _setting(name: str, value: object) -> Iterator[str]:
    option = name.replace("_", "-")
    yield f"--{'' if value else 'no-'}{option}" if isinstance(value, bool) else f"--{option}={value}"


def _heard(lines: Iterable[str], on_progress: Callable[[str], None]) -> Iterator[str]:
    for line in lines:
        yield line
        if not line.startswith(_PREFIX):
            on_progress(line.rstrip())


def _reason(said: Sequence[str]) -> str:
    """From the line on in which the command says why it failed; all that it said when there is none."""
    starts = [at for at, line in enumerate(said) if line.startswith(_PREFIX)]
    return "".join(said[starts[-1] :] if starts else said[-20:]).strip().removeprefix(_PREFIX)
