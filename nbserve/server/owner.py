"""Hears of the end of the process that owns a server, however that ends. Server process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import psutil

OWNER_POLL_S = 1.0
OnEnd = Callable[[], None]


def watch_owner(loop: asyncio.AbstractEventLoop, owner_pid: int, on_end: OnEnd) -> None:
    if not hasattr(os, "pidfd_open"):
        loop.call_later(OWNER_POLL_S, _poll, loop, owner_pid, on_end)
        return
    try:
        owner = os.pidfd_open(owner_pid)
    except ProcessLookupError:
        on_end()
    else:
        loop.add_reader(owner, _ended, loop, owner, on_end)


def _ended(loop: asyncio.AbstractEventLoop, owner: int, on_end: OnEnd) -> None:
    # It stays readable for ever.
    loop.remove_reader(owner)
    os.close(owner)
    on_end()


def _poll(loop: asyncio.AbstractEventLoop, owner_pid: int, on_end: OnEnd) -> None:
    if psutil.pid_exists(owner_pid):
        loop.call_later(OWNER_POLL_S, _poll, loop, owner_pid, on_end)
    else:
        on_end()
