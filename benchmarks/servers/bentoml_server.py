"""BentoML: a batchable API whose input and output specs pass raw bodies, so that pydantic parses nothing twice."""

from __future__ import annotations

from typing import Any

import bentoml
from _bentoml_sdk.io_models import IORootModel
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.servers.settings import Settings

settings = Settings.from_environment()


class RawRow(IORootModel[list[bytes]]):
    """One body as a batch of one: what a batchable API wants to get."""

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> RawRow:
        return cls.model_construct(root=[await request.body()])

    @classmethod
    async def to_http_response(cls, obj: Any, serde: Any) -> Response:
        return Response(obj[0], media_type="application/json")


RawRow.__root_input__ = True


@bentoml.service(
    workers=settings.workers,
    traffic={"timeout": 60, "max_concurrency": 1024},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Inference:
    def __init__(self) -> None:
        self.workload = settings.load()

    @bentoml.api(
        route="/predict",
        batchable=True,
        max_batch_size=settings.max_batch_size,
        max_latency_ms=60_000,
        input_spec=RawRow,
        output_spec=RawRow,
    )
    def predict(self, rows: list[bytes], /) -> list[bytes]:
        answers = self.workload.run([self.workload.decode(row) for row in rows])
        return [self.workload.encode(answer) for answer in answers]
