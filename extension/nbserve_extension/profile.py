"""Jupyter's server: the page of a profile, made by `nbserve profile` in a process of its own."""

from __future__ import annotations

import asyncio
import atexit
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tornado import web

from nbserve.errors import BadRequest, ProfileError

from .api_handler import ApiHandler

OPTIONS = ("batches", "load", "seconds")
# Enough to end the recording and to remove its files.
END_LIMIT_S = 10.0


class ProfileHandler(ApiHandler):
    """Records the endpoint; a client that hangs up ends the recording."""

    @web.authenticated
    async def post(self, name: str) -> None:
        options = options_of(self.body_object())
        run_file = await self.servers.having(name, self.server_id)
        page = await self.while_connected(make_page(name, run_file.server_id, options))
        if page is not None:
            self.send_body(page, "text/html; charset=UTF-8")


def options_of(wish: Mapping[str, Any]) -> list[str]:
    """The words of the command line; what else a value may be is for the command to say."""
    words = []
    for name, value in wish.items():
        if name not in OPTIONS:
            raise BadRequest(f"{name!r} is unknown here; there are: {', '.join(OPTIONS)}")
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadRequest(f"{name!r} is {value!r}; it takes a number")
        words += [f"--{name}={value}"]
    return words


async def make_page(name: str, server_id: str, options: list[str]) -> bytes:
    """Record, and give the page; raises ProfileError with what the command said."""
    # Open to nobody else: a recording shows what clients sent.
    with tempfile.TemporaryDirectory(prefix="nbserve-page-") as folder:
        page = Path(folder) / "profile.html"
        command = ["-m", "nbserve", "profile", f"--server={server_id}", "-o", str(page), *options, "--", name]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        # Jupyter's end does not call off what it waits for.
        atexit.register(process.send_signal, signal.SIGINT)
        try:
            _, said = await process.communicate()
        finally:
            atexit.unregister(process.send_signal)
            await _end(process)
        if process.returncode != 0:
            raise ProfileError(_reason(said.decode(errors="replace")))
        return await asyncio.to_thread(page.read_bytes)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let it clean up; done when it is gone."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(process.wait(), END_LIMIT_S)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()


def _reason(said: str) -> str:
    """What the command said, without its name; of a usage error just what is wrong."""
    last = said.strip().splitlines()[-1:] or ["nbserve profile ended and did not say why"]
    return (
        last[0].removeprefix("nbserve profile: error: ")
        if "error: " in last[0]
        else said.strip().removeprefix("nbserve: ")
    )
