"""What an endpoint's batches cost and how fast requests come and go, learned batch by batch. Pure; server process."""

from __future__ import annotations

from dataclasses import dataclass

_KEEP = 0.98  # what a batch still counts one batch later: a memory of about 50 batches
_SLOPE_DOUBT = 0.003  # how far sizes must differ, squared and relative, before the measured slope outweighs the guess
_REFERENCE_ROWS = 32
_OUTLIER = 4.0
_WINDOW_NS = 2_000_000_000


@dataclass
class ServiceLine:
    """Service time as `fixed_ns + row_ns * rows`: decayed least squares, leaning on a guess where sizes are alike."""

    fixed_ns: float = 0.0
    row_ns: float = 0.0
    _fixed_share: float = 0.15  # of 32 rows' time; a guess, then as last measured while sizes differed
    _weight: float = 0.0
    _rows: float = 0.0
    _ns: float = 0.0
    _rows_squared: float = 0.0
    _rows_ns: float = 0.0

    def learn(self, rows: int, service_ns: float) -> None:
        # The first batch of a compiled model takes a thousand times longer than the others: begin again after it.
        if service_ns * _OUTLIER < self.at(rows):
            self._weight = self._rows = self._ns = self._rows_squared = self._rows_ns = 0.0
        if self._weight > 1:
            service_ns = min(service_ns, _OUTLIER * max(self.at(rows), self._ns / self._weight))
        self._weight = self._weight * _KEEP + 1
        self._rows = self._rows * _KEEP + rows
        self._ns = self._ns * _KEEP + service_ns
        self._rows_squared = self._rows_squared * _KEEP + rows * rows
        self._rows_ns = self._rows_ns * _KEEP + rows * service_ns
        self._fit()

    def at(self, rows: float) -> float:
        """Expected service time of a batch of `rows`, in ns."""
        return self.fixed_ns + self.row_ns * rows

    def _fit(self) -> None:
        rows, ns = self._rows / self._weight, self._ns / self._weight
        doubt = _SLOPE_DOUBT * rows * rows
        variance = max(0.0, self._rows_squared / self._weight - rows * rows)
        covariance = self._rows_ns / self._weight - rows * ns
        slope = (covariance + doubt * self._guessed_row_ns(rows, ns)) / (variance + doubt)
        self.row_ns = min(max(slope, 0.0), ns / rows)
        self.fixed_ns = ns - self.row_ns * rows
        measured = self.fixed_ns / max(1.0, self.at(_REFERENCE_ROWS))
        self._fixed_share += 0.1 * variance / (variance + doubt) * (measured - self._fixed_share)

    def _guessed_row_ns(self, rows: float, ns: float) -> float:
        row_share = (1 - self._fixed_share) / _REFERENCE_ROWS
        return ns * row_share / (self._fixed_share + row_share * rows)


@dataclass
class Rate:
    """Rows per second over the last two to four seconds."""

    _started_ns: int = 0
    _rows: int = 0
    _before_ns: int = 0
    _before_rows: int = 0

    def learn(self, rows: int, now_ns: int) -> None:
        if not self._started_ns:
            self._started_ns = now_ns
        elif now_ns - self._started_ns > _WINDOW_NS:
            self._before_ns, self._before_rows = now_ns - self._started_ns, self._rows
            self._started_ns, self._rows = now_ns, 0
        self._rows += rows

    def per_second(self, now_ns: int) -> float:
        elapsed_ns = self._before_ns + (now_ns - self._started_ns if self._started_ns else 0)
        return (self._before_rows + self._rows) * 1e9 / elapsed_ns if elapsed_ns > 0 else 0.0
