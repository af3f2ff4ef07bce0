"""A cell that waits for an answer attends to the workers that are held meanwhile. Runs in the kernel."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from nbserve import debugging
from nbserve.debugwire import IS_HELD
from nbserve.errors import NbserveError
from nbserve.notebook import cell
from nbserve.notebook import held as words
from nbserve.notebook.console import KernelConsole, has_input
from nbserve.notebook.progress import ProgressLine
from nbserve.notebook.watch import Holds, Watch, Watches
from nbserve.serving import home
from nbserve.verbs import Endpoint

# Most answers come sooner and need no watch.
PATIENCE_S = 0.2


class Attendant:
    """Puts the console into the running cell at each new hold that nobody debugs; without input it only tells."""

    def __init__(self, shell: InteractiveShell, endpoint: Endpoint, since_s: float) -> None:
        self._shell = shell
        self._endpoint = endpoint
        self._since_s = since_s
        self._seen: set[tuple[int, float]] = set()
        self._console = KernelConsole(endpoint.name)

    def look(self, holds: Holds) -> None:
        for held in holds:
            key = (held["worker"], held["since_s"])
            if held["debugger"] or key in self._seen or held["since_s"] < self._since_s:
                continue
            self._seen.add(key)
            self._attend(held)

    def _attend(self, held: dict[str, Any]) -> None:
        # Who interrupted the prompt wants out: a breakpoint() in a loop must not ask again.
        if self._console.was_interrupted or not has_input(self._shell):
            return self._console.note(_told(self._endpoint.name, held))
        options = debugging.DebugOptions(worker=held["worker"], who=cell.label(self._shell))
        try:
            debugging.debug(self._endpoint, options, self._console)
        except NbserveError as error:
            self._console.note(str(error))
        return None


class Starting:
    """Progress of a start; a worker that is held in its `initialize` is debugged in the cell that serves."""

    def __init__(self, shell: InteractiveShell, name: str, progress: ProgressLine) -> None:
        self._shell = shell
        self._name = name
        self._progress = progress
        self._began_s = time.time()
        self._attendant: Attendant | None = None

    def __call__(self, text: str) -> None:
        self._progress(text)
        if IS_HELD in text and has_input(self._shell):
            self._attend()

    def _attend(self) -> None:
        endpoint = home().endpoint(self._name, self._progress)
        if self._attendant is None:
            self._attendant = Attendant(self._shell, endpoint, self._began_s)
        with contextlib.closing(endpoint.holds()) as holds:
            held = next(holds, [])
        self._attendant.look(held)


def call(shell: InteractiveShell, watches: Watches, endpoint: Endpoint, work: Callable[[], Any]) -> Any:
    """What `work` returns or raises; it runs in a thread, so that this cell can debug what it runs into."""
    began_s = time.time()
    events: queue.SimpleQueue[Future[Any] | Holds] = queue.SimpleQueue()
    _in_thread(work).add_done_callback(events.put)
    try:
        event = events.get(timeout=PATIENCE_S)
    except queue.Empty:
        event = _attended(events, watches.of(endpoint), Attendant(shell, endpoint, began_s))
    assert isinstance(event, Future)
    return event.result()


def _attended(events: queue.SimpleQueue[Any], watch: Watch, attendant: Attendant) -> Future[Any]:
    with watch.listening(events.put):
        while not isinstance(event := events.get(), Future):
            # Only the newest list of holds is true.
            if events.empty():
                attendant.look(event)
    return event


def _in_thread(work: Callable[[], Any]) -> Future[Any]:
    """A daemon, unlike those of an executor: an interrupted cell leaves it behind, and the kernel can still end."""
    future: Future[Any] = Future()
    threading.Thread(target=_settle, args=(future, work), name="nbserve-request", daemon=True).start()
    return future


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        # Raised again in the cell.
        future.set_exception(error)


def _told(name: str, held: dict[str, Any]) -> str:
    return (
        f"{words.place(held)}, and this cell waits for it. In a terminal `nbserve attach {name}` attaches; "
        f'in a notebook %serve debug {name} --request ... --commands "w; p xs; c" sends a request and says what to do'
    )
