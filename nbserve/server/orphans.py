"""The first process of a container inherits whatever others leave running, and is to reap it. Server process."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from contextlib import suppress

import psutil

LOOK_EVERY_S = 1.0
_PR_GET_CHILD_SUBREAPER = 37


class Orphans:
    """Reaps ended children that nobody waits for.

    Who starts a child of ours waits for it, and has it within moments of its end. So one that is still there at the
    next look is nobody's: a handler's grandchild, or a worker whose nursery was killed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._seen: set[psutil.Process] = set()
        self._next: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        self.look()
        self._next = self._loop.call_later(LOOK_EVERY_S, self.watch)

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()

    def look(self) -> None:
        ended = ended_children()
        for child in ended & self._seen:
            with suppress(ChildProcessError):
                os.waitpid(child.pid, os.WNOHANG)
        self._seen = ended - self._seen


def inherits_orphans() -> bool:
    """Whether processes whose parent ended become children of this one."""
    if os.getpid() == 1:
        return True
    if sys.platform != "linux":
        return False
    is_subreaper = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(is_subreaper), 0, 0, 0)
    return bool(is_subreaper.value)


def ended_children() -> set[psutil.Process]:
    """The children that are to be waited for."""
    try:
        # Nearly always there is none: all of /proc need not be read to know that.
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return set()
    except ChildProcessError:
        return set()
    return {child for child in psutil.Process().children() if _has_ended(child)}


def _has_ended(child: psutil.Process) -> bool:
    try:
        return child.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
