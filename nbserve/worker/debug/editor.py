"""debugpy in a worker, for VS Code and other editors. Loaded when somebody asks for it. Runs in the worker."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from nbserve.bundle.load import cells_of
from nbserve.bundle.markers import statements
from nbserve.debugwire import Reason
from nbserve.errors import DebugError
from nbserve.handler import Context
from nbserve.worker.debug.guard import as_written
from nbserve.worker.stages import Pipeline, Watch

HOST = "127.0.0.1"
LOOK_INTERVAL_S = 0.05
_WORKER_FOLDER = str(Path(__file__).parent.parent)
_CONTINUE = -1
_HOW_TO_GET_IT = "debugpy is not installed where the server runs: pip install 'nbserve-torch[debugpy]'"


class Stops(Protocol):
    """Who tells the server that the worker is held, and that it goes on."""

    def enter(self, frame: types.FrameType, reason: Reason) -> None: ...

    def leave(self) -> None: ...


class Editor:
    """debugpy, listening for one editor. Tracing cannot be undone: the worker is to be replaced afterwards.

    pydevd speaks the editors' protocol itself here, so there is no adapter process that could outlive the worker.
    `folder` is where the cells' texts are put for it.
    """

    def __init__(self, port: int, bundle: Path, folder: Path, stops: Stops) -> None:
        self.port = port
        self.files: dict[str, Path] = {}
        self._bundle = bundle
        self._folder = folder
        self._stops = stops
        self._main = threading.main_thread().ident
        self._is_closed = threading.Event()
        self._db: Any = None

    def listen(self) -> int:
        """Wait for an editor from here on, which any thread may start; gives the port. Main is traced too."""
        self.port = _free_port(self.port)
        debugpy = _imported()
        debugpy.configure(subProcess=False)
        try:
            debugpy.listen((HOST, self.port), in_process_debug_adapter=True)
        except RuntimeError as error:
            raise DebugError(f"{error}: this worker is about to be replaced, ask again for the next one") from None
        self._adapt()
        return self.port

    def is_connected(self) -> bool:
        """Whether an editor is attached and done with setting its breakpoints."""
        return self._db is not None and bool(self._db.is_attached()) and self._db.reader.is_alive()

    def wait_until_connected(self) -> bool:
        """False when `close` came first."""
        while not (self._is_closed.wait(LOOK_INTERVAL_S) or self.is_connected()):
            pass
        return not self._is_closed.is_set()

    def wait_until_left(self) -> None:
        """Wait until the editor that was connected is gone, however it went, or `close` was called."""
        while not self._is_closed.wait(LOOK_INTERVAL_S) and self.is_connected():
            pass

    def traced(self, pipeline: Pipeline) -> Pipeline:
        """The pipeline as an editor wants it: seen from its first call on, and as it was written."""

        def run(bodies: list[Any], context: Context, watch: Watch) -> Sequence[Any]:
            self._trace_this_thread()
            with as_written():
                return pipeline(bodies, context, watch)

        return run

    def close(self) -> None:
        """Clear breakpoints, let everything go on and listen no more. Any thread, any number of times."""
        import pydevd
        from _pydevd_bundle.pydevd_api import PyDevdAPI

        if self._db is None or self._is_closed.is_set():
            return
        self._is_closed.set()
        PyDevdAPI().request_disconnect(self._db, resume_threads=True)
        pydevd.stoptrace()

    def stop_here(self, frame: types.FrameType) -> None:
        """Stop at the next line of this frame, which belongs to the calling thread."""
        import pydevd

        pydevd.settrace(
            suspend=True,
            trace_only_current_thread=True,
            patch_multiprocessing=False,
            notify_stdin=False,
            stop_at_frame=frame,
        )

    def _trace_this_thread(self) -> None:
        # debugpy does so from another thread only where it brings a library for that: not on ARM before Python 3.12.
        if not self._is_closed.is_set():
            self._db.enable_tracing()

    def _adapt(self) -> None:
        """Show cells as files, the worker's own code not at all, and tell of stops."""
        import debugpy
        import pydevd
        import pydevd_tracing
        from _pydevd_bundle.pydevd_api import PyDevdAPI

        self._db = pydevd.get_global_debugger()
        # Else it prints a warning when anybody else calls sys.settrace.
        pydevd_tracing.restore_sys_set_trace_func()
        hidden = (str(Path(debugpy.__file__).parent), _WORKER_FOLDER)
        PyDevdAPI().set_dont_trace_start_end_patterns(self._db, hidden, ("debugpy_launcher.py",))
        self._show_cells(PyDevdAPI())
        self._tell_of_stops()

    def _show_cells(self, api: Any) -> None:
        """An editor needs files: write each cell into one, with the cell's own line numbers, and map it to the code.

        pydevd takes a code's file name for a path, unless it is in brackets: those names it maps to other files.
        """
        from pydevd_file_utils import NORM_PATHS_AND_BASE_CONTAINER

        source = (self._bundle / "app.py").read_text(encoding="utf-8")
        for label, lines in cells_of(source, list(statements(source))).items():
            self.files[label] = file = self._folder / f"{self._bundle.name}, {label.replace('/', '_')}.py"
            file.write_text("\n".join([*lines, ""]), encoding="utf-8")
            name = f"<{label}>"
            NORM_PATHS_AND_BASE_CONTAINER[label] = (name, name, name)
            api.set_source_mapping(self._db, str(file), [api.SourceMappingEntry(1, len(lines), 1, name)])

    def _tell_of_stops(self) -> None:
        wait = self._db.do_wait_suspend

        def held(thread: Any, frame: types.FrameType, event: str, *more: Any, **named: Any) -> None:
            if threading.get_ident() != self._main:
                wait(thread, frame, event, *more, **named)
                return
            self._stops.enter(frame, "exception" if event == "exception" else "stop")
            wait(thread, frame, event, *more, **named)
            if thread.additional_info.pydev_step_cmd == _CONTINUE:
                self._stops.leave()

        self._db.do_wait_suspend = held


def _imported() -> Any:
    """debugpy, imported without what it does to others: a warning on standard error, and breakpoint() taken over."""
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    with _kept_breakpointhook():
        try:
            import debugpy
            import debugpy.server.api
        except ImportError:
            raise DebugError(_HOW_TO_GET_IT) from None
    return debugpy


@contextlib.contextmanager
def _kept_breakpointhook() -> Iterator[None]:
    before = sys.breakpointhook
    try:
        yield
    finally:
        sys.breakpointhook = before


def _free_port(port: int) -> int:
    """The port, if nobody has it, or one for 0: pydevd binds in another thread, where an error would be lost."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise DebugError(f"port {port} cannot be used ({error}): give another, or 0 for any") from None
        return int(probe.getsockname()[1])
