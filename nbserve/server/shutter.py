"""Closing a listener so that nobody who got a connection loses it. Server process."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress

_SO_ATTACH_FILTER = 26
# Berkeley packet filter on the TCP header: drop what asks for a new connection (SYN without ACK), let all else pass.
_PROGRAM = (
    (0x30, 0, 0, 13),  # load the byte with the flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # let it pass
)


def take_no_new(listeners: Sequence[int]) -> None:
    """Let nobody begin to connect to these listening sockets; who has begun gets through.

    Closing a listener resets the connections that wait in it, and their clients have sent requests already. Once
    nobody joins them they can be accepted, down to the last. Where there is no such filter, closing has to do.
    """
    if sys.platform != "linux":
        return
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _PROGRAM))
    program = struct.pack("HP", len(_PROGRAM), ctypes.addressof(code))
    for listener in listeners:
        with suppress(OSError), socket.socket(fileno=os.dup(listener)) as twin:
            twin.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
