"""The proof before shipping: the exported bundle, started as in a container, answers as the notebook did. Runs in the
kernel and the CLI."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from nbserve.bundle.bundle import GOLDEN, Bundle, Golden, golden_text
from nbserve.config import EndpointConfig
from nbserve.errors import ExportError, GoldenMismatch, ServerGone
from nbserve.export.cleanroom import CleanServer
from nbserve.replay import Mismatch, Replay, Tolerance, replay

OnProgress = Callable[[str], None]

# Enough to see that several go together; more would cost memory and time, and answer the same.
MOST_WORKERS = 2
# Has workers leave what inductor compiles in the bundle's cache/, for machines like this one.
_RECORD = {"NBSERVE_COMPILED_RECORD": "1"}
_CACHE = "cache"
START_MARGIN_S = 60.0


def prove(
    bundle: Path,
    pairs: Sequence[Golden],
    on_progress: OnProgress = lambda text: None,
    ignore: Collection[str] = (),
) -> int:
    """Start a bundle in a clean process and ask it the recorded requests; gives how many answers were equal.

    Places of answers that `ignore` names, such as `$.id`, are not compared. Raises ExportError when it does not
    start or leaves something behind, GoldenMismatch at the first other answer.
    """
    head = Bundle.read(bundle)
    config = EndpointConfig().changed(head.settings)
    tolerance = replace(Tolerance.of_dtype(config.dtype), ignore=frozenset(ignore))
    on_progress(f"starting {head.name} in a clean process{_fewer(config.workers)}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_untouched(head.path))
        if config.compile:
            on_progress(f"it compiles with {config.compile} for batches of each size, which takes a while")
            stack.enter_context(_warming(head.path, pairs))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nbserve-proof-")))
        options = ["--workers", str(min(config.workers, MOST_WORKERS))]
        server = stack.enter_context(
            CleanServer(head.path, folder, options, _RECORD if config.compile == "inductor" else {})
        )
        url = f"{_start(server, config)}/predictions/{quote(head.name)}"
        found = _ask(server, url, pairs, tolerance, config, on_progress)
        failure = server.last_failure()
        if killed := server.stop():
            raise ExportError(f"{head.name} left behind what had to be killed: {', '.join(killed)}")
    if found.mismatch is not None:
        raise GoldenMismatch(_explained(found.mismatch, failure, head.name))
    on_progress(_summary(found, head.name))
    return found.checked


def _start(server: CleanServer, config: EndpointConfig) -> str:
    try:
        return server.ready(config.start_timeout_s * min(config.workers, MOST_WORKERS) + START_MARGIN_S)
    except ExportError as error:
        text = f"the bundle does not start in a clean process, so it would not in a container: {error}"
        raise ExportError(f"{text}{_hint(str(error))}") from None


def _ask(
    server: CleanServer,
    url: str,
    pairs: Sequence[Golden],
    tolerance: Tolerance,
    config: EndpointConfig,
    on_progress: OnProgress,
) -> Replay:
    try:
        return replay(
            url, pairs, tolerance, limit_s=config.response_timeout_s + START_MARGIN_S, on_progress=on_progress
        )
    except ServerGone as error:
        raise ExportError(f"the started bundle went away: {error}\n{server.last_words()}") from None


@contextlib.contextmanager
def _untouched(bundle: Path) -> Iterator[None]:
    """Raise ExportError when the handler wrote into its bundle, which a container cannot."""
    before = set(_files(bundle))
    yield
    if written := sorted(set(_files(bundle)) - before):
        names = ", ".join(path.relative_to(bundle).as_posix() for path in written[:3])
        for path in written:
            path.unlink()
        raise ExportError(
            f"the handler wrote into its bundle ({names}), which is read-only in a container: "
            "write below tempfile.gettempdir()"
        )


def _files(bundle: Path) -> Iterator[Path]:
    """All but what compilers are to leave."""
    found = (path for path in bundle.rglob("*") if not path.is_dir())
    return (path for path in found if path.relative_to(bundle).parts[0] != _CACHE)


@contextlib.contextmanager
def _warming(bundle: Path, pairs: Sequence[Golden]) -> Iterator[None]:
    """The requests in the bundle meanwhile: workers warm with them what they compile."""
    file = bundle / GOLDEN
    if file.exists():
        yield
        return
    file.write_text(golden_text(pairs), encoding="utf-8")
    try:
        yield
    finally:
        file.unlink()


def _fewer(workers: int) -> str:
    return f" with {MOST_WORKERS} of its {workers} workers" if workers > MOST_WORKERS else ""


def _summary(found: Replay, name: str) -> str:
    if not found.asked:
        return (
            f"it starts, but nothing was compared, as no request is recorded: %serve predict {name} ... "
            f"(or nbserve predict {name} ...) records one"
        )
    answers = "the recorded request" if found.checked == 1 else f"all {found.checked} recorded requests"
    return f"it answers {answers} as the notebook did"


def _explained(mismatch: Mismatch, failure: str, name: str) -> str:
    text = f"in a clean process, {mismatch}"
    if mismatch.changes:
        return f"{text} Leave it out of the answer, or out of the comparison: ignore '{mismatch.difference.place}'."
    if mismatch.received.status >= 500:
        return f"{text}\n{failure}{_hint(failure)}".rstrip()
    return f"{text}\nIf the notebook answers so too by now, ask it again (%serve predict {name} ...) and export again."


def _hint(error: str) -> str:
    """What an error that comes only outside the notebook means."""
    if module := re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", error):
        return (
            f"\nOnly the notebook's process finds {module[1]}: it is neither in the bundle nor installed as a package. "
            "Import it in a cell by name, so that it is captured, or install it."
        )
    if error.endswith("No module named nbserve"):
        return "\nInstall nbserve here: it is found only through PYTHONPATH or the folder that this runs in."
    if "FileNotFoundError: " in error:
        return "\nOnly the bundle is there when it runs elsewhere: load the file in a cell, and use what was loaded."
    return ""
