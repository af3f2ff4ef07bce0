"""Sessions, holds and their connection at awkward moments, in this process."""

from __future__ import annotations

import contextlib
import queue
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nbserve import debugwire
from nbserve.wire import Row
from nbserve.worker.channel import Channel
from nbserve.worker.debug import link as link_module
from nbserve.worker.debug.debugger import Debugger
from nbserve.worker.debug.last_error import LastError, shown_body
from nbserve.worker.debug.link import Link
from nbserve.worker.debug.session import Session
from nbserve.worker.debug.stacks import innermost_file
from nbserve.worker.spec import WorkerSpec

LARGE = "x" * 4_000_000


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def debugger() -> Iterator[Debugger]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.shutdown(socket.SHUT_WR)
        yield Debugger(Channel(ours), WorkerSpec("/b", "h", "1", hold_timeout_s=0.0), ())


def test_who_does_not_read_is_hung_up_on(ends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "PATIENCE_S", 0.05)
    link = Link(ends[0])
    link.send("out", text=LARGE)
    assert link.is_over
    assert link.replies.get_nowait() is None


def test_at_a_prompt_who_does_not_read_is_waited_for(ends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "PATIENCE_S", 0.05)
    link = Link(ends[0])
    link.is_patient = True
    thread = threading.Thread(target=link.send, args=["out"], kwargs={"text": LARGE})
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    received = bytearray()
    while not received.endswith(b"\n"):
        received += ends[1].recv(1 << 20)
    thread.join(10)
    assert received == debugwire.encode({"event": "out", "text": LARGE})
    assert not link.is_over


def test_a_session_that_ends_does_not_wait_for_who_does_not_read(ends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "PATIENCE_S", 0.05)
    link = Link(ends[0])
    link.is_patient = True
    thread = threading.Thread(target=link.send, args=["out"], kwargs={"text": LARGE})
    thread.start()
    link.is_patient = False
    thread.join(10)
    assert not thread.is_alive()


def test_what_was_sent_before_the_end_is_not_obeyed(ends: Any) -> None:
    link = Link(ends[0])
    console = link_module.Console(link)
    link.replies.put({"cmd": "reply", "text": "!while True: pass"})
    link.hang_up()
    assert console.readline() == ""


def test_a_hold_whose_time_is_up_cannot_be_taken(debugger: Debugger) -> None:
    debugger.enter(sys._getframe(), "breakpoint")
    assert debugger._await_debugger() is None
    assert debugger.state()["held"] is None


def test_an_interrupt_that_comes_when_the_request_is_answered_is_told(debugger: Debugger, ends: Any) -> None:
    session = Session(Link(ends[0]), "a test", "interrupt")
    debugger.begin(session)
    debugger.take(session)
    debugger.batch_done()
    with contextlib.closing(ends[1].makefile()) as lines:
        assert "the request has been answered: nothing is left to interrupt" in lines.readline()
    assert debugger.session is None


def test_a_wait_in_the_standard_library_belongs_to_its_caller() -> None:
    frames: queue.SimpleQueue[Any] = queue.SimpleQueue()

    class Lock:
        def acquire(self, *arguments: Any) -> bool:
            frames.put(sys._getframe(1))
            return True

        def release(self) -> None: ...

    threading.Condition(Lock()).wait_for(lambda: frames.put(sys._getframe(1)) or True)  # type: ignore[arg-type]
    assert innermost_file(frames.get()) == __file__


def test_a_long_body_is_marked_as_cut() -> None:
    assert shown_body(memoryview(b"short")) == "short"
    assert shown_body(memoryview(b"[" + b"1," * 1000)) == "[" + "1," * 59 + "1\N{HORIZONTAL ELLIPSIS} (2,001 bytes)"
    assert shown_body(memoryview("é".encode() * 120)) == "é" * 120
    errors = LastError("ab")
    errors.keep([Row(1, b"", memoryview(b"7" * 121))], ValueError())
    found = errors.get()
    assert found is not None
    assert found.body.endswith("7\N{HORIZONTAL ELLIPSIS} (121 bytes)")
