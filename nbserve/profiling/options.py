"""What to record, and who asks meanwhile; what to compare, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nbserve.errors import ProfileError
from nbserve.profiling.requests import Request

# Clients may stop asking: who waits for batches then gets what there was.
BATCHES_LIMIT_S = 60.0


@dataclass(frozen=True)
class ProfileOptions:
    """How to profile, in the words of `Endpoint.profile`. Raises ProfileError for what cannot go together.

    It ends after `batches` or `seconds`, whichever is first: `batches` alone for at most BATCHES_LIMIT_S; without
    either the server has its defaults. `load` is in requests per second.
    """

    batches: int | None = None
    seconds: float | None = None
    worker: int | None = None
    all_workers: bool = False
    load: float | None = None
    request: bytes | None = None
    content_type: str | None = None
    memory: bool = False
    stacks: bool = False
    shapes: bool = True
    startup: bool = False

    def __post_init__(self) -> None:
        for name in ("batches", "seconds", "load"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ProfileError(f"--{name} is {value}; it takes more than 0")
        if self.content_type is not None and self.request is None:
            raise ProfileError("--content-type is about a --request, and there is none")
        given = [word for name, word in _NOT_FOR_A_START.items() if is_given(getattr(self, name))]
        if self.startup and given:
            raise ProfileError(f"--startup and {given[0]} do not go together: the start was recorded already")

    def wish(self) -> dict[str, Any]:
        """What the server is asked for."""
        if self.startup:
            return {"startup": True}
        return {
            "batches": self.batches,
            "seconds": self.seconds or (BATCHES_LIMIT_S if self.batches else None),
            "worker": self.worker,
            "all": self.all_workers,
            "stacks": self.stacks,
            "memory": self.memory,
            "shapes": self.shapes,
        }


@dataclass(frozen=True)
class AbOptions:
    """How to compare: `clients` None is what was seen last, `requests` empty are the recorded ones."""

    apply: bool = False
    clients: int | None = None
    requests: Sequence[Request] = ()
    seconds: float = 20.0

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ProfileError(f"--seconds is {self.seconds:g}; it takes more than 0")
        if self.clients is not None and self.clients < 1:
            raise ProfileError(f"--clients is {self.clients}; it takes 1 or more")


_NOT_FOR_A_START = {
    "batches": "--batches",
    "seconds": "--seconds",
    "worker": "--worker",
    "all_workers": "--worker all",
    "memory": "--memory",
    "stacks": "--stacks",
}


def is_given(value: object) -> bool:
    """Whether an option was; 0 is a value too."""
    return value is not None and value is not False


def worker_of(word: str | int | None) -> tuple[int | None, bool]:
    """One worker's index, or whether it is all of them; raises ProfileError for other words."""
    if word is None or word == "all":
        return None, word == "all"
    try:
        return int(word), False
    except ValueError:
        raise ProfileError(f"--worker is {word!r}; it takes a worker's number, or all") from None
