"""The routes of the management API that try other settings out. Server process."""

from __future__ import annotations

from nbserve.errors import BadRequest, NotFound, Unavailable
from nbserve.server.api_handler import ApiHandler
from nbserve.server.endpoint import Endpoint
from nbserve.server.status import trial_status
from nbserve.server.stream import StreamHandler
from nbserve.server.version import Version


class TrialsHandler(StreamHandler):
    """Lines of JSON: `progress`, then `ready` or `failed`. The trial lives until the client hangs up."""

    async def post(self, name: str) -> None:
        endpoint = self.server.endpoints.get(name)
        settings = self.body_object().get("settings", {})
        if not isinstance(settings, dict):
            raise BadRequest(f"settings is {settings!r}; it takes an object")
        await self.follow(self._try(endpoint, endpoint.serving(), settings))

    async def _try(self, endpoint: Endpoint, current: Version, settings: dict[str, object]) -> None:
        config = current.config.changed(settings)
        async with endpoint.trials.open(current, config, self.progress) as trial:
            url = f"{self.server.endpoint_status(endpoint.name)['url']}/{trial.name}"
            self.say({"event": "ready", "version": trial.name, "url": url, "settings": config.as_dict()})
            await trial.closed()
            raise Unavailable(f"endpoint {endpoint.name} was stopped, and {trial.name} with it")


class TrialHandler(ApiHandler):
    async def patch(self, name: str, trial_name: str) -> None:
        """Change what can change while a trial runs; nothing of it is kept."""
        endpoint = self.server.endpoints.get(name)
        if (trial := endpoint.trials.get(trial_name)) is None:
            raise NotFound(f"{name} has no trial {trial_name} that is ready")
        await trial.configure(self.body_object())
        self.send(trial_status(trial))


def routes(name: str) -> list[tuple[str, type[ApiHandler]]]:
    """The routes below an endpoint; `name` is the pattern of its path."""
    return [(name + "/trials", TrialsHandler), (name + r"/trials/([^/]+)", TrialHandler)]
