"""`nbserve ray`: a bundle on a Ray cluster, as an application of Ray Serve."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from nbserve.config import EndpointConfig
from nbserve.options import add_settings, number, settings_of
from nbserve.ray import check_installed
from nbserve.ray.options import RayOptions

if TYPE_CHECKING:
    from nbserve.cli.arguments import Verbs

DESCRIPTION = """\
Run a bundle on a Ray cluster: Ray owns the replicas, and each has the handler
in it. Answers nbserve's routes at Ray's proxies. Deploying again replaces it;
where only settings such as max_batch_size changed, replicas go on with them.
"""
EXAMPLES = """\
examples:
  nbserve ray deploy BUNDLE                          on the cluster that runs on this machine
  nbserve ray deploy BUNDLE --address HOST:6379 --replicas 4
  nbserve ray deploy BUNDLE --min-replicas 1 --max-replicas 8
  nbserve ray deploy BUNDLE --build-config-only > ray_serve.yaml
  nbserve ray delete digits
"""


def add(verbs: Verbs) -> None:
    ray = verbs.add_parser("ray", help="run a bundle on a Ray cluster, or take it off")
    actions = ray.add_subparsers(metavar="ACTION", required=True)
    _add_deploy(actions)
    delete = actions.add_parser("delete", help="take an application off the cluster")
    delete.add_argument("name", metavar="NAME", help="the application")
    _add_address(delete)
    delete.set_defaults(run=_delete)


def _add_deploy(actions: Verbs) -> None:
    deploy = actions.add_parser(
        "deploy",
        help="run a bundle on a cluster",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    deploy.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder written by %%%%serve")
    _add_address(deploy)
    deploy.add_argument("--name", metavar="NAME", help="the application's (default: the endpoint's)")
    deploy.add_argument("--route-prefix", metavar="PATH", default="/", help="before all routes (default: /)")
    deploy.add_argument("--host", default=RayOptions.host, help="where Serve listens, if it does not yet")
    deploy.add_argument(
        "--port", type=number(int), default=RayOptions.port, metavar="N", help="likewise (default: 8000)"
    )
    deploy.add_argument(
        "--in-place", action="store_true", help="take nothing to the nodes: all of them have the bundle at this path"
    )
    deploy.add_argument(
        "--build-config-only", action="store_true", help="print a config for `serve deploy`, and deploy nothing"
    )
    deploy.add_argument("--json", action="store_true", help="say what runs in JSON, for programs")
    size = deploy.add_argument_group("replicas")
    size.add_argument("--replicas", type=number(int), metavar="N", help="so many (default: the setting workers)")
    size.add_argument("--min-replicas", type=number(int), metavar="N", help="let Ray choose, from this many")
    size.add_argument("--max-replicas", type=number(int), metavar="N", help="up to this many")
    size.add_argument("--cpus", type=number(float), metavar="X", help="for each (default: threads_per_worker, or 1)")
    size.add_argument("--gpus", type=number(float), metavar="X", help="for each (default: 1 with device=cuda)")
    add_settings(deploy, EndpointConfig)
    deploy.set_defaults(run=_deploy)


def _add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address", default=RayOptions.address, help="of the cluster (default: the one on this machine)"
    )


def _deploy(values: argparse.Namespace) -> int:
    options = RayOptions(
        address=values.address,
        name=values.name,
        route_prefix=values.route_prefix,
        replicas=values.replicas,
        min_replicas=values.min_replicas,
        max_replicas=values.max_replicas,
        cpus=values.cpus,
        gpus=values.gpus,
        host=values.host,
        port=values.port,
        in_place=values.in_place,
        settings=settings_of(values, EndpointConfig),
    )
    if values.build_config_only:
        from nbserve.export.rayserve import config_text

        print(config_text(values.bundle, options), end="")
        return 0
    check_installed()
    from nbserve.ray.deploy import deploy

    deployed = deploy(values.bundle, options, _tell)
    if values.json:
        print(orjson.dumps(asdict(deployed)).decode())
    else:
        print(deployed)
    return 0


def _delete(values: argparse.Namespace) -> int:
    check_installed()
    from nbserve.ray.deploy import delete

    delete(values.name, values.address)
    print(f"{values.name} is off the cluster")
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
