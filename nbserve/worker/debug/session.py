"""What one debugger asked for and how far it got. Runs in the worker."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from nbserve.worker.debug.link import Console, Link
from nbserve.worker.debug.targets import Condition, Target
from nbserve.worker.debug.worker_pdb import Stops, WorkerPdb

if TYPE_CHECKING:
    from nbserve.worker.debug.editor import Editor

# Instead of the handler's code: no request, or a prompt that an earlier debugger has not left yet.
Met = Literal["idle", "prompt"]
Verb = Literal["attach", "stop", "interrupt", "post_mortem", "debugpy"]


@dataclass(eq=False)
class Session:
    """The worker's one debugger. `target` is where it waits to stop, `token` the header of the request it waits for."""

    link: Link
    who: str
    verb: Verb
    repeat: bool = False
    token: str | None = None
    target: Target | None = None
    condition: Condition | None = None
    since_s: float = field(default_factory=time.time)
    # The prompt that stops what runs, or the one that only looks.
    pdb: WorkerPdb | None = None
    post_mortem: WorkerPdb | None = None
    editor: Editor | None = None
    # Of the batch that runs now: whether it was stopped in, and whether its error was shown.
    has_stopped: bool = False
    has_shown_error: bool = False
    has_met_token: bool = False
    # What an interrupt says that could not stop anything.
    met: queue.SimpleQueue[Met] = field(default_factory=queue.SimpleQueue)
    _notes: set[str] = field(default_factory=set)

    @property
    def kind(self) -> str:
        return "debugpy" if self.verb == "debugpy" else "pdb"

    @property
    def can_stop(self) -> bool:
        """Whether it has what it takes to stop the worker: a prompt, or an editor that is connected."""
        return self.pdb is not None or (self.editor is not None and self.editor.is_connected())

    def batch_done(self) -> bool:
        """Whether it has had what it was after, with the batch that has been answered."""
        has_had_it = self.has_stopped and (self.token is None or self.has_met_token)
        self.has_stopped = self.has_shown_error = False
        return has_had_it and not self.repeat

    def take_control(self, stops: Stops) -> None:
        """Make the prompt with which this debugger stops what runs."""
        if self.verb not in ("post_mortem", "debugpy"):
            self.pdb = WorkerPdb(Console(self.link), stops)

    def note(self, text: str) -> None:
        """Tell something beside the output, each text once."""
        if text not in self._notes:
            self._notes.add(text)
            self.link.send("note", text=text)

    def described(self, worker_index: int) -> str:
        since = time.strftime("%H:%M:%S", time.localtime(self.since_s))
        return f"worker {worker_index} is being debugged by {self.who} since {since}"
