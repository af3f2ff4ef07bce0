"""What can be chosen for an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExportOptions:
    """How to export; every field has the default of all faces.

    `build` is the tag of an image to build with what is there of docker, podman and buildah. `gpu` takes torch with
    CUDA and asks for a GPU; None means as the bundle's setting `device` says. `port` is where the container listens.
    `index_url` is the package index of torch; "" means the one of pip's configuration, None the one that fits torch's
    build. `base` is the image to build upon. `golden` is a file to replay in place of the recorded requests.
    `ignore` names places of answers that are new each time, such as `$.id`: they are not compared.
    """

    build: str | None = None
    gpu: bool | None = None
    port: int = 8080
    index_url: str | None = None
    base: str | None = None
    golden: Path | None = None
    ignore: tuple[str, ...] = ()
