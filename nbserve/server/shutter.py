"""Closing a listener so that nobody who got a connection loses it. Server process."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress

from nbserve.server.address import own_host

_TRIES = 16


def take_the_last(fd: int) -> tuple[list[socket.socket], socket.socket | None]:
    """Accept who waits at a listening socket that is closed right after; also gives what is to be closed after that.

    Closing resets the connections that wait, and their clients have sent requests already. So the queue is emptied, and
    then filled with a connection of our own: Linux lets nobody else in while it is full.
    """
    taken: list[socket.socket] = []
    # Where there is no descriptor left for it, closing has to do.
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as listener:
        taken += _accepted(listener)
        if sys.platform != "linux":
            return taken, None
        listener.listen(0)
        for _ in range(_TRIES):
            taken += _accepted(listener)
            if (plug := _plugged(listener)) is not None:
                return taken, plug
        taken += _accepted(listener)
    return taken, None


def _accepted(listener: socket.socket) -> list[socket.socket]:
    taken = []
    # One that has left already is an OSError too.
    with suppress(OSError):
        while True:
            taken.append(listener.accept()[0])
    return taken


def _plugged(listener: socket.socket) -> socket.socket | None:
    """A connection that fills the listener's queue, or None where somebody else was faster."""
    host, port, *rest = listener.getsockname()
    plug = socket.socket(listener.family, socket.SOCK_STREAM)
    plug.setblocking(False)
    with suppress(OSError):
        plug.connect_ex((own_host(host), port, *rest))
        # Between sockets of one machine it is connected at once or not at all.
        plug.getpeername()
        return plug
    plug.close()
    return None
