"""Run a whole notebook in a kernel of its own, and find what it served. Runs in the terminal."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nbserve.capture.store import Store
from nbserve.deployment import Server
from nbserve.errors import ExportError, NbserveError

# Of the text that a cell failed with.
MOST_LINES = 16
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_QUIET = "--IPKernelApp.log_level=50"


@dataclass(frozen=True)
class Step:
    """One of `count` cells, before it runs and, with the seconds it took, afterwards."""

    number: int
    count: int
    cell: Any
    took_s: float | None = None

    @property
    def line(self) -> str:
        """The cell's first line."""
        return str(self.cell.source.strip().partition("\n")[0])

    def __str__(self) -> str:
        return f"[{self.number:>{len(str(self.count))}}/{self.count}] {self.line}"


OnStep = Callable[[Step], None]


@contextmanager
def served(
    path: Path, tell: Callable[[str], None], *, kernel: str | None = None, allow_errors: bool = False
) -> Iterator[Mapping[str, Path]]:
    """Run a notebook; gives the bundles that it served, by name: of each the newest.

    They are gone after this block. Servers and bundles are kept apart from those of this user, so that nothing that
    runs is replaced or stopped, and nothing that the notebook started is left running.
    """
    notebook = read(path)
    with tempfile.TemporaryDirectory(prefix="nbserve-run-") as folder:
        environ = {"NBSERVE_CACHE_DIR": f"{folder}/cache", "NBSERVE_RUNTIME_DIR": f"{folder}/run"}
        with _environ(environ):
            try:
                execute(notebook, path, _told(tell), kernel=kernel, allow_errors=allow_errors, at_end=_stop_servers)
            except ExportError as error:
                raise ExportError(f"{error}\nnothing was exported") from None
        bundles = Store(Path(environ["NBSERVE_CACHE_DIR"])).served()
        if not bundles:
            raise ExportError(f"{path.name} serves nothing: it has no %%serve cell, and calls no nbserve.serve(...)")
        yield bundles


def read(path: Path) -> Any:
    """The notebook; raises ExportError when it is none, or when the libraries to run it are missing."""
    try:
        import nbclient  # noqa: F401
        import nbformat
    except ImportError:
        raise ExportError("to run a notebook takes nbclient: pip install 'nbserve-torch[jupyter]'") from None
    try:
        return nbformat.read(path, as_version=4)
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, nbformat.ValidationError) as error:
        raise ExportError(f"{path} is no notebook: {str(error).partition(chr(10))[0][:200]}") from None


def execute(
    notebook: Any,
    path: Path,
    on_step: OnStep,
    *,
    kernel: str | None = None,
    allow_errors: bool = False,
    cell_limit_s: int | None = None,
    at_end: Callable[[], None] = lambda: None,
) -> None:
    """Run all cells in a new kernel, in the folder of `path`; outputs go into the notebook.

    As with nbclient, cells tagged `skip-execution` are left out, and those tagged `raises-exception` may fail. Raises
    ExportError for another cell that fails. `at_end` is called in any case, before the kernel ends.
    """
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient import NotebookClient
    from nbclient.exceptions import DeadKernelError

    folder = path.absolute().parent
    client = NotebookClient(
        notebook,
        timeout=cell_limit_s,
        allow_errors=allow_errors,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=[_QUIET],
        **({"kernel_name": kernel} if kernel else {}),
    )
    steps = _steps(notebook, client.skip_cells_with_tag)
    try:
        # As Jupyter tells it to its kernels: bundles say where they come from.
        with client.setup_kernel(env={**os.environ, "JPY_SESSION_NAME": str(folder / path.name)}):
            try:
                for index, step in steps:
                    _run(client, index, step, on_step, path)
            except BaseException as error:
                # It may be busy still, and nobody waits for that.
                client.shutdown_kernel = "immediate"
                if isinstance(error, KeyboardInterrupt):
                    # What was interrupted would complain at the end that its kernel died.
                    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
                raise
            finally:
                at_end()
    except NoSuchKernel as error:
        raise ExportError(
            f"{path.name} wants the kernel {error.name!r}, which is not here: choose one with --kernel"
        ) from None
    except DeadKernelError:
        raise ExportError(f"the kernel died while it ran {path.name}; is there enough memory?") from None
    finally:
        # An interrupt while it starts comes before the block that ends it.
        if client.km is not None and client.km.has_kernel:
            client.km.shutdown_kernel(now=True)


def _steps(notebook: Any, skipped: str) -> list[tuple[int, Step]]:
    """The cells that run, with their place in the notebook; their numbers are then those in brackets beside them."""
    places = [
        index
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and cell.source.strip() and skipped not in cell.metadata.get("tags", [])
    ]
    return [(index, Step(number, len(places), notebook.cells[index])) for number, index in enumerate(places, start=1)]


def _run(client: Any, index: int, step: Step, on_step: OnStep, path: Path) -> None:
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    on_step(step)
    began = time.monotonic()
    try:
        client.execute_cell(step.cell, index)
    except CellExecutionError as error:
        raise ExportError(failure(step, path.name, error.traceback)) from None
    except CellTimeoutError:
        raise ExportError(f"cell {step.number} of {path.name} took too long: {step.line}") from None
    on_step(replace(step, took_s=time.monotonic() - began))


def failure(step: Step, name: str, told: str = "") -> str:
    """Which cell failed, at which of its lines, and the end of what it said: its output, else what was `told`."""
    shown = [output for output in step.cell.outputs if output.output_type == "error"]
    said = _ANSI.sub("", "\n".join(shown[-1].traceback) if shown else told).strip("\n")
    lines = [line for line in said.splitlines() if line.strip(" -")]
    where = re.search(rf"Cell In\[{step.number}\], line (\d+)", said)
    source = step.cell.source.splitlines()
    number = int(where[1]) if where else 1
    line = source[number - 1].strip() if number <= len(source) else step.line
    at = f" in line {number}" if where else ""
    cut = ["..."] if len(lines) > MOST_LINES else []
    below = "\n".join(f"  {line}" for line in [*cut, *lines[-MOST_LINES:]])
    return f"cell {step.number} of {name} failed{at}: {line}\n{below}"


def _told(tell: Callable[[str], None]) -> OnStep:
    def on_step(step: Step) -> None:
        if step.took_s is None:
            tell(str(step))

    return on_step


def _stop_servers() -> None:
    """Also those that were detached; that of the kernel would end with it, but nobody could tell when it has."""
    for server in Server.find():
        try:
            server.stop()
        except NbserveError:
            if server.is_alive():
                raise


@contextmanager
def _environ(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
