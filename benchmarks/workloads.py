"""The four workloads, each defined once and used by every server and by the in-process limit. torch is imported late.

A workload decodes one body, runs a batch of decoded rows, and encodes one answer. JSON is orjson's work everywhere.
"""

from __future__ import annotations

import random
from typing import Any, ClassVar, Protocol

import orjson

SEED = 20261123
JSON = "application/json"


class Workload(Protocol):
    """What the servers call. Building one loads its model and sets torch's threads (0 leaves them alone)."""

    name: ClassVar[str]
    content_type: ClassVar[str]
    max_batch_size: ClassVar[int]

    def __init__(self, threads: int = 0) -> None: ...

    def decode(self, body: bytes) -> Any: ...

    def run(self, rows: list[Any]) -> list[Any]: ...

    def encode(self, answer: Any) -> bytes: ...

    @staticmethod
    def body(rng: random.Random) -> bytes:
        """The body of one request; the same generator state gives the same bytes."""
        ...


class Echo:
    """A JSON object of 100 bytes, parsed and encoded again: what a server costs by itself."""

    name = "echo"
    content_type = JSON
    max_batch_size = 32

    def __init__(self, threads: int = 0) -> None:
        pass

    def decode(self, body: bytes) -> Any:
        return orjson.loads(body)

    def run(self, rows: list[Any]) -> list[Any]:
        return rows

    def encode(self, answer: Any) -> bytes:
        return orjson.dumps(answer)

    @staticmethod
    def body(rng: random.Random) -> bytes:
        head = orjson.dumps({"id": rng.randrange(10**8, 10**9), "tags": ["a", "b"], "text": ""})
        return orjson.dumps({**orjson.loads(head), "text": "".join(rng.choices("abcdefgh", k=100 - len(head)))})


class _Model(Echo):
    """A seeded torch model around `build` and `to_array`; answers are ten floats."""

    def __init__(self, threads: int = 0) -> None:
        import torch

        if threads:
            torch.set_num_threads(threads)
        torch.manual_seed(SEED)
        self.model = self.build().eval()

    def build(self) -> Any:
        raise NotImplementedError

    def to_array(self, rows: list[Any]) -> Any:
        raise NotImplementedError

    def run(self, rows: list[Any]) -> list[Any]:
        import torch

        with torch.inference_mode():
            answers: list[Any] = self.model(torch.from_numpy(self.to_array(rows))).tolist()
        return answers


class Mlp(_Model):
    """256 floats as JSON through 1.3 million parameters."""

    name = "mlp"

    def build(self) -> Any:
        from torch import nn

        return nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))

    def to_array(self, rows: list[Any]) -> Any:
        import numpy as np

        return np.array(rows, dtype=np.float32)

    @staticmethod
    def body(rng: random.Random) -> bytes:
        return orjson.dumps([round(rng.uniform(-1, 1), 6) for _ in range(256)])


class Encoder(_Model):
    """64 token ids as JSON through a transformer encoder: 4 layers, d=256."""

    name = "encoder"
    max_batch_size = 8

    def build(self) -> Any:
        from torch import nn

        class SentenceEncoder(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embedding = nn.Embedding(1000, 256)
                layer = nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True)
                self.layers = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
                self.head = nn.Linear(256, 10)

            def forward(self, ids: Any) -> Any:
                return self.head(self.layers(self.embedding(ids)).mean(dim=1))

        return SentenceEncoder()

    def to_array(self, rows: list[Any]) -> Any:
        import numpy as np

        return np.array(rows, dtype=np.int64)

    @staticmethod
    def body(rng: random.Random) -> bytes:
        return orjson.dumps([rng.randrange(1000) for _ in range(64)])


class Image(_Model):
    """A raw 224x224 RGB image, 150,528 bytes, into a small conv net."""

    name = "image"
    content_type = "application/octet-stream"
    max_batch_size = 8

    def build(self) -> Any:
        import torch
        from torch import nn

        class ConvNet(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.Sequential(
                    nn.Conv2d(3, 32, 7, stride=4, padding=3),
                    nn.ReLU(),
                    nn.Conv2d(32, 64, 3, stride=2, padding=1),
                    nn.ReLU(),
                    nn.Conv2d(64, 128, 3, stride=2, padding=1),
                    nn.ReLU(),
                    nn.AdaptiveAvgPool2d(1),
                    nn.Flatten(),
                    nn.Linear(128, 10),
                )

            def forward(self, pixels: torch.Tensor) -> Any:
                return self.layers(pixels.permute(0, 3, 1, 2).float().div_(255))

        return ConvNet()

    def decode(self, body: bytes) -> Any:
        return body

    def to_array(self, rows: list[Any]) -> Any:
        import numpy as np

        return np.stack([np.frombuffer(row, dtype=np.uint8).reshape(224, 224, 3) for row in rows])

    @staticmethod
    def body(rng: random.Random) -> bytes:
        return rng.randbytes(224 * 224 * 3)


WORKLOADS: dict[str, type[Workload]] = {kind.name: kind for kind in (Echo, Mlp, Encoder, Image)}


def examples(name: str, count: int) -> list[bytes]:
    """The first `count` request bodies of a workload, the same in every process and run."""
    rng = random.Random(SEED)
    return [WORKLOADS[name].body(rng) for _ in range(count)]
