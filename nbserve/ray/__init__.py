"""The bundle as an application of Ray Serve. Ray is imported only below this folder, and only when it is used.

`replica.py` and what it imports run in Ray's replicas, `deploy.py` in the kernel or the terminal, `app.py` there too
and in the task in which Serve builds an application from a config file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nbserve.errors import RayError

if TYPE_CHECKING:
    from ray.serve import Application

__all__ = ["application", "check_installed", "from_args"]


def application(
    bundle_path: str | os.PathLike[str],
    *,
    settings: Mapping[str, Any] | None = None,
    replicas: int | None = None,
    autoscaling: Mapping[str, Any] | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    name: str | None = None,
) -> Application:
    """The bundle as an application for `serve.run`, or for `serve deploy` where a module calls it.

    Every node must have the bundle at this path; one below Ray's `working_dir` is looked up there. `settings` are laid
    over those of the bundle. There are `replicas` of it (default: as many as the setting `workers`), or as many as
    Ray's `autoscaling_config` in `autoscaling` lets there be. Each reserves `cpus` (default: `threads_per_worker`, or
    1) and `gpus` (default: 1 where the setting `device` says cuda). `name` is what the deployment is called.
    """
    check_installed()
    from nbserve.ray.app import build

    return build(
        bundle_path,
        settings=settings,
        replicas=replicas,
        autoscaling=autoscaling,
        cpus=cpus,
        gpus=gpus,
        name=name,
    )


def from_args(args: Mapping[str, Any]) -> Application:
    """What a Serve config names that has no module of its own: `args` are `bundle` and `settings`."""
    return application(args["bundle"], settings=args.get("settings"))


def check_installed() -> None:
    """Raise RayError where there is no Ray."""
    try:
        from ray import serve  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "nbserve":
            raise
        raise RayError("Ray is not installed here: pip install 'nbserve-torch[ray]'") from None
