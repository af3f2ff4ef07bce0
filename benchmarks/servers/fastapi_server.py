"""Hand-written FastAPI, one request at a time: the raw body in, the model called in the handler, no batching."""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI, Request, Response

from benchmarks.servers.settings import Settings


def build() -> FastAPI:
    workload = Settings.from_environment().load()
    app = FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        row = workload.decode(await request.body())
        return Response(workload.encode(workload.run([row])[0]), media_type="application/json")

    return app


if __name__ == "__main__":
    settings = Settings.from_environment()
    uvicorn.run(
        "benchmarks.servers.fastapi_server:build",
        factory=True,
        port=settings.port,
        workers=settings.workers,
        log_level="warning",
        access_log=False,
        loop="uvloop",
        http="httptools",
    )
