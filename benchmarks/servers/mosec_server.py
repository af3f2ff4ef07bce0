"""Mosec with orjson and numpy: its HTTP front in Rust, workers that batch."""

from __future__ import annotations

from typing import Any

from mosec import Server, Worker

from benchmarks.servers.settings import Settings


class Inference(Worker):
    """Bytes in and out, so that the JSON parser is ours and not the standard library's."""

    def __init__(self) -> None:
        self.workload = Settings.from_environment().load()

    def deserialize(self, data: bytes) -> Any:
        return self.workload.decode(data)

    def forward(self, data: list[Any]) -> list[Any]:
        return self.workload.run(data)

    def serialize(self, data: Any) -> bytes:
        return self.workload.encode(data)


if __name__ == "__main__":
    settings = Settings.from_environment()
    server = Server()
    server.append_worker(
        Inference,
        num=settings.workers,
        max_batch_size=settings.max_batch_size,
        max_wait_time=max(1, round(settings.window_ms)),
        timeout=60,
    )
    server.run()
