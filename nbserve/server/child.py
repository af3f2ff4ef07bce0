"""A process of nbserve's own beside the server, told and heard through pipes. Server process."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process


async def start_child(*words: str, most_line_bytes: int) -> Process:
    """Run `python -m WORDS`; none of its lines may be longer than `most_line_bytes`."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *words),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        # Its own session, so that Ctrl-C in the terminal reaches the server alone.
        start_new_session=True,
        limit=most_line_bytes,
    )
