"""TorchServe's handler: goes into the model archive. `decode_input_request=false` hands it raw bodies."""

from __future__ import annotations

from typing import Any

from benchmarks.servers.settings import Settings


class Inference:
    def initialize(self, context: Any) -> None:
        self.workload = Settings.from_environment().load()

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        rows = [self.workload.decode(bytes(row.get("body") or row.get("data"))) for row in data]
        return [self.workload.encode(answer) for answer in self.workload.run(rows)]
