"""What can be chosen for an export."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nbserve.errors import ExportError
from nbserve.export.plan import MANAGEMENT_PORT, METRICS_PORT

MOST_PORT = 65535
# A registry with its port, names between slashes, and a tag.
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:(?:\.|_{1,2}|-+|/)[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
)


@dataclass(frozen=True)
class ExportOptions:
    """How to export; every field has the default of all faces.

    `build` is the tag of an image to build with what is there of docker, podman and buildah. `gpu` takes torch with
    CUDA and asks for a GPU; None means as the bundle's setting `device` says. `port` is where the container listens.
    `index_url` is the package index of torch; "" means the one of pip's configuration, None the one that fits torch's
    build. `base` is the image to build upon. `golden` is a file to replay in place of the recorded requests.
    `ignore` names places of answers that are new each time, such as `$.id`: they are not compared.
    Raises ExportError for what makes no sense.
    """

    build: str | None = None
    gpu: bool | None = None
    port: int = 8080
    index_url: str | None = None
    base: str | None = None
    golden: Path | None = None
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.port <= MOST_PORT:
            raise ExportError(f"port is {self.port}; it takes 1 to {MOST_PORT}")
        if self.port in (MANAGEMENT_PORT, METRICS_PORT):
            raise ExportError(
                f"port is {self.port}, which is that of the management or of the metrics in the container"
            )
        if self.build is not None and not _IMAGE.fullmatch(self.build):
            raise ExportError(
                f"build is {self.build!r}, and no image can have this name: it takes lower-case letters, digits, dots "
                "and dashes, as in digits:1"
            )
