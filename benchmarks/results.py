"""A run's records, looked up: medians over rounds, and ratios taken within each round so that drift cancels. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Point = dict[str, Any]
SELF, UNBATCHED = "nbserve", "fastapi"


@dataclass(frozen=True)
class Cell:
    """Medians over the rounds of one server at one number of connections; any error disqualifies it."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    errors: int

    @classmethod
    def of(cls, points: Sequence[Point]) -> Cell:
        names = ("requests_per_s", "p50_ms", "p99_ms", "cpu_us")
        medians = {name: statistics.median(point[name] for point in points) for name in names}
        return cls(**medians, errors=sum(point["errors"] for point in points))


@dataclass(frozen=True)
class Row:
    """What is compared: one workload, one number of workers, one number of connections."""

    workload: str
    workers: int
    connections: int


class Results:
    """The records of one run: points, limits, failures and extras, as run.py writes them."""

    def __init__(self, records: dict[str, Any]) -> None:
        self.points: list[Point] = records.get("point", [])
        self.limits: list[Point] = records.get("limit", [])
        self.failures: list[Point] = records.get("failure", [])
        self.extras: dict[str, Any] = records.get("extras", {})

    def distinct(self, name: str) -> list[Any]:
        """The values of a field, in the order in which they were measured."""
        return list(dict.fromkeys(point[name] for point in self.points + self.failures if name in point))

    def cell(self, row: Row, server: str) -> Cell | None:
        points = self._points(row, server)
        return Cell.of(points) if points else None

    def peers(self, row: Row) -> dict[str, Cell]:
        """The cells of all qualified servers but nbserve."""
        cells = {server: self.cell(row, server) for server in self.distinct("server") if server != SELF}
        return {server: cell for server, cell in cells.items() if cell and not cell.errors}

    def limit(self, workload: str, workers: int, processes: int) -> float | None:
        """The in-process limit: median over rounds of all loops together, at the best batch size."""
        rates = self._limits(workload, workers, processes)
        return statistics.median(rates.values()) if rates else None

    def ratio_to_peer(self, row: Row, server: str) -> float | None:
        """nbserve's requests per second over another server's: the median of the rounds' ratios."""
        own, other = self._by_round(row, SELF), self._by_round(row, server)
        return _median_ratio(own, other)

    def ratio_to_limit(self, row: Row, processes: int, times: float = 1.0) -> float | None:
        """nbserve's requests per second over `times` the limit of that many loops."""
        limits = self._limits(row.workload, row.workers, processes)
        return _median_ratio(self._by_round(row, SELF), {number: rate * times for number, rate in limits.items()})

    def _by_round(self, row: Row, server: str) -> dict[int, float]:
        points = self._points(row, server)
        if any(point["errors"] for point in points):
            return {}
        return {point["round"]: point["requests_per_s"] for point in points}

    def _points(self, row: Row, server: str) -> list[Point]:
        wanted = {"workload": row.workload, "workers": row.workers, "connections": row.connections, "server": server}
        return [point for point in self.points if wanted.items() <= point.items()]

    def _limits(self, workload: str, workers: int, processes: int) -> dict[int, float]:
        wanted = {"workload": workload, "workers": workers, "processes": processes}
        records = [record for record in self.limits if wanted.items() <= record.items()]
        if not records:
            return {}
        by_size = {size: {r["round"]: _together(r, size) for r in records} for size in records[0]["rates"][0]}
        return max(by_size.values(), key=lambda rounds: statistics.median(rounds.values()))


def _together(record: Point, size: str) -> float:
    return float(sum(rates[size] for rates in record["rates"]))


def _median_ratio(own: dict[int, float], other: dict[int, float]) -> float | None:
    ratios = [own[number] / other[number] for number in own.keys() & other.keys() if other[number]]
    return statistics.median(ratios) if ratios else None
