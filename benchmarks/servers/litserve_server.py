"""LitServe: raw bodies through its ZeroMQ queue, as many API processes as workers."""

from __future__ import annotations

from typing import Annotated, Any

import litserve
from fastapi import Depends, Request, Response

from benchmarks.servers.settings import Settings


async def raw_body(request: Request) -> bytes:
    return await request.body()


Body = Annotated[bytes, Depends(raw_body)]


class Inference(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.workload = Settings.from_environment().load()

    def decode_request(self, request: Body) -> Any:
        return self.workload.decode(request)

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, rows: list[Any]) -> list[Any]:
        return self.workload.run(rows)

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> Response:
        return Response(self.workload.encode(output), media_type="application/json")


# LitServe reads these annotations itself and cannot read them as text.
Inference.decode_request.__annotations__["request"] = Body
Inference.encode_response.__annotations__["return"] = Response

if __name__ == "__main__":
    settings = Settings.from_environment()
    api = Inference(max_batch_size=settings.max_batch_size, batch_timeout=settings.window_ms / 1000)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=settings.workers, fast_queue=True, timeout=60
    )
    server.run(
        host="127.0.0.1",
        port=settings.port,
        num_api_servers=settings.workers,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
