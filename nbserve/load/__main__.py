"""The load generator's process: `python -m nbserve.load`. It ends when its standard input does.

Orders and what came of them are lines of JSON: `{"do": "requests", "requests": [[content type, body in base64], ...]}`,
then any number of `{"do": "run", ...Job}`, each answered by an Outcome; `{"do": "stop"}` ends a run early. A job that
wants to be told of gets `{"progress": Progress}` before that, again and again.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import orjson

from nbserve import fastloop
from nbserve.load.generator import Generator, Tally
from nbserve.load.job import Job

_MOST_LINE_BYTES = 2**31


async def obey(orders: asyncio.StreamReader) -> None:
    """Carry out orders until there are no more; a run in progress ends with them."""
    generator = Generator()
    stop = asyncio.Event()
    running: asyncio.Task[None] | None = None
    while line := await orders.readline():
        order: dict[str, Any] = orjson.loads(line)
        what = order.pop("do")
        if what == "requests":
            generator.take(order["requests"])
        elif what == "stop":
            stop.set()
        else:
            stop = asyncio.Event()
            running = asyncio.create_task(_run(generator, Job(**order), stop))
    if running is not None:
        running.cancel()


async def _run(generator: Generator, job: Job, stop: asyncio.Event) -> None:
    tally = Tally()
    telling = asyncio.create_task(_tell(tally, job.progress_s)) if job.progress_s else None
    await generator.run(job, tally, stop)
    if telling is not None:
        telling.cancel()
    _say(tally.outcome())


async def _tell(tally: Tally, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        _say({"progress": tally.progress()})


def _say(line: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(line) + b"\n")
    sys.stdout.flush()


async def main() -> None:
    orders = asyncio.StreamReader(limit=_MOST_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    await obey(orders)
    # Connections may still be open; there is nothing to say goodbye for.
    os._exit(0)


if __name__ == "__main__":
    fastloop.run(main)
