"""Ray Serve's deployment: replicas with `serve.batch`."""

from __future__ import annotations

from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.servers.settings import Settings

settings = Settings.from_environment()


@serve.deployment(num_replicas=settings.workers, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0})
class Inference:
    def __init__(self) -> None:
        self.workload = settings.load()

    @serve.batch(max_batch_size=settings.max_batch_size, batch_wait_timeout_s=settings.window_ms / 1000)
    async def predict(self, bodies: list[bytes]) -> list[bytes]:
        answers = self.workload.run([self.workload.decode(body) for body in bodies])
        return [self.workload.encode(answer) for answer in answers]

    async def __call__(self, request: Request) -> Response:
        return Response(await self.predict(await request.body()), media_type="application/json")
