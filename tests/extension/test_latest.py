"""The lines that wait for a browser."""

from __future__ import annotations

import asyncio

from nbserve_extension.latest import Latest

BEGIN, GONE = b'{"event":"begin"}', b'{"event":"gone"}'


def stats(number: int) -> bytes:
    return b'{"event":"stats","number":%d}' % number


async def rest(lines: Latest) -> list[bytes]:
    taken = []
    while (line := await lines.take()) is not None:
        taken.append(line)
    return taken


def test_of_stats_that_nobody_read_only_the_newest_waits():
    async def run() -> None:
        lines = Latest()
        for line in (BEGIN, stats(1), stats(2), stats(3)):
            lines.put(line)
        assert await lines.take() == BEGIN
        lines.put(stats(4))
        lines.put(GONE)
        lines.end()
        assert await rest(lines) == [stats(4), GONE]

    asyncio.run(run())


def test_who_waits_gets_the_next_line_and_then_the_end():
    async def run() -> None:
        lines = Latest()
        waiting = asyncio.ensure_future(rest(lines))
        await asyncio.sleep(0)
        lines.put(stats(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        lines.put(stats(2))
        lines.end()
        assert await waiting == [stats(1), stats(2)]

    asyncio.run(run())
