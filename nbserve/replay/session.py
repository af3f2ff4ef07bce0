"""Golden pairs asked again: does what runs at a URL answer as the notebook did? Runs in the kernel and the CLI."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from nbserve.bundle.bundle import Golden
from nbserve.errors import ConfigError, GoldenMismatch
from nbserve.replay.client import ANSWER_LIMIT_S, NOT_YET, Address, Client, address_of
from nbserve.replay.difference import (
    FLOAT32,
    Difference,
    Received,
    Tolerance,
    difference,
    error_text,
    media_type,
    shown,
)

OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class Mismatch:
    """A request that was answered in another way: the how-manyth, where the answers differ, and why that may be.

    `changes`: asked once more, it answered in yet another way.
    """

    number: int
    request: Golden
    received: Received
    difference: Difference
    hint: str = ""
    changes: bool = False

    def __str__(self) -> str:
        asked = f"request {self.number} ({media_type(self.request.content_type)} {shown(self.request.request_body)})"
        text = f"{asked} is answered in another way: {self.difference}"
        return f"{text}\n{self.hint}" if self.hint else text


@dataclass(frozen=True)
class Replay:
    """What came of it: how many answers were equal, the first that was not, and the milliseconds of each."""

    url: str
    asked: int
    checked: int
    mismatch: Mismatch | None = None
    ms: tuple[float, ...] = ()

    def __str__(self) -> str:
        if self.mismatch is not None:
            return f"{self.url}: {self.mismatch}"
        times = f"; {statistics.median(self.ms):.1f} ms in the median, {max(self.ms):.1f} at most" if self.ms else ""
        answers = "1 answer is" if self.checked == 1 else f"all {self.checked} answers are"
        return f"{self.url}: {answers} equal to what was recorded{times}"

    def raise_for_difference(self) -> None:
        """Raise GoldenMismatch when there is one."""
        if self.mismatch is not None:
            raise GoldenMismatch(str(self.mismatch))


def replay(
    url: str,
    pairs: Sequence[Golden],
    tolerance: Tolerance = FLOAT32,
    *,
    headers: Mapping[str, str] | None = None,
    limit_s: float = ANSWER_LIMIT_S,
    wait_s: float = 0.0,
    on_progress: OnProgress = lambda text: None,
) -> Replay:
    """Ask each recorded request, one after the other, up to the first whose answer differs.

    `url` is where predictions are asked for, or a server's with one endpoint. `wait_s` waits that long for a server
    that is not ready; `limit_s` is for each answer. Raises ServerGone when there is none, ConfigError for a wrong URL.
    """
    address = address_of(url)
    with Client(address, headers, limit_s) as client:
        if wait_s:
            on_progress(f"waiting until {address.base} is ready")
            client.wait_until_ready(wait_s)
        times: list[float] = []
        for number, pair in enumerate(pairs, 1):
            on_progress(f"asking request {number} of {len(pairs)}")
            began = time.monotonic()
            received = client.post(pair.request_body, pair.content_type)
            times.append((time.monotonic() - began) * 1000)
            if found := difference(_expected(pair), received, tolerance):
                _check_address(address, pair, received)
                mismatch = _mismatch(client, Mismatch(number, pair, received, found), tolerance)
                return Replay(str(address), len(pairs), number - 1, mismatch, tuple(times))
    return Replay(str(address), len(pairs), len(pairs), None, tuple(times))


def _expected(pair: Golden) -> Received:
    return Received(pair.status, pair.answer_content_type, pair.answer_body)


def _check_address(address: Address, pair: Golden, received: Received) -> None:
    """Raise for an answer that says nothing of the model: there is none at this URL."""
    if received.status not in (404, 405) or pair.status == received.status:
        return
    said = error_text(received.body)
    if address.is_guessed:
        raise ConfigError(
            f"{address.base} has no {address.path} that answers ({received.status} {said}): "
            f"give the URL of predictions, such as {address.base}/predictions/NAME"
        )
    raise ConfigError(f"nothing answers predictions at {address}: {received.status} {said}")


def _mismatch(client: Client, found: Mismatch, tolerance: Tolerance) -> Mismatch:
    """With a hint where there is one."""
    status = found.received.status
    if status != found.request.status:
        return replace(found, hint=_status_hint(status))
    again = client.post(found.request.request_body, found.request.content_type)
    changing = difference(found.received, again, tolerance)
    if changing is None or changing.place != found.difference.place:
        return found
    hint = (
        f"Asked again it answers {changing.received}: what is new in each answer, such as an id, a time or a random "
        "number, cannot be compared."
    )
    return replace(found, hint=hint, changes=True)


def _status_hint(status: int) -> str:
    if status in (401, 403):
        return "It wants credentials: --header 'Authorization: Bearer ...'."
    if status in NOT_YET:
        return "It is not ready, or has too much to do: --wait SECONDS waits until it is."
    return "It sends clients elsewhere: give that URL, which may be https://." if 300 <= status < 400 else ""
