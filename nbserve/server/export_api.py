"""The route of the management API that exports an endpoint. Server process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nbserve.bundle.pack import pack_folder
from nbserve.errors import BadRequest, NotFound
from nbserve.server.api_handler import ApiHandler
from nbserve.server.bundle_api import send_packed
from nbserve.server.export import ExportOrder

_WORDS = {"directory": "a text", "build": "a text", "gpu": "true, false or null"}


class ExportHandler(ApiHandler):
    """Begins and ends the export of an endpoint, and gives the folder that it wrote as one file."""

    async def post(self, name: str) -> None:
        exports = self.server.endpoints.get(name).exports
        status = self.server.status()
        order = order_of(self.body_object(), name, folder_of(status["notebook"]))
        await exports.start(status["server_id"], order)
        self.send(exports.status())

    async def delete(self, name: str) -> None:
        exports = self.server.endpoints.get(name).exports
        await exports.stop()
        if (status := exports.status()) is None:
            raise NotFound(f"{name} was not exported")
        self.send(status)

    async def get(self, name: str) -> None:
        status = self.server.endpoints.get(name).exports.status()
        if status is None or status["result"] is None:
            raise NotFound(f"there is no finished export of {name} yet")
        folder = Path(status["result"]["path"])
        if not folder.is_dir():
            raise NotFound(f"{folder} is gone: export {name} again")
        await send_packed(self, folder.name, lambda file: pack_folder(folder, file))


def order_of(wish: dict[str, Any], name: str, folder: Path) -> ExportOrder:
    """What was asked for; relative directories are below `folder`. Raises BadRequest."""
    for key, value in wish.items():
        if key not in _WORDS:
            raise BadRequest(f"{key!r} is unknown here; there are: {', '.join(_WORDS)}")
        if value is not None and type(value) is not (bool if key == "gpu" else str):
            raise BadRequest(f"{key} is {value!r}; it takes {_WORDS[key]}")
    directory = (wish.get("directory") or "").strip() or f"{name}-export"
    build = (wish.get("build") or "").strip() or None
    try:
        return ExportOrder((folder / Path(directory).expanduser()).resolve(), build, wish.get("gpu"))
    except (OSError, RuntimeError, ValueError) as error:
        raise BadRequest(f"directory is {directory!r}, which is no path here: {error}") from None


def folder_of(notebook: str | None) -> Path:
    """Where the notebook lies that the server belongs to; else where the server was started."""
    if notebook:
        folder = Path(notebook).parent
        if folder.is_absolute() and folder.is_dir():
            return folder
    return Path.cwd()


def routes(name: str) -> list[tuple[str, type[ApiHandler]]]:
    """The routes below an endpoint; `name` is the pattern of its path."""
    return [(name + "/export", ExportHandler)]
