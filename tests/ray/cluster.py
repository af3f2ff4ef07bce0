"""A Ray cluster of several nodes on this machine, in a process of its own, which ends with its stdin.

`python cluster.py PORT` prints a line of JSON when it is up, and answers each line of JSON: {"do": "add"},
{"do": "kill", "node": ID} and {"do": "config", "config": {...}}. Ray's threads, warnings and signal handlers stay out
of the tests' own process.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from typing import Any

NODE_MEMORY_BYTES = 80 * 1024 * 1024
PORTS = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "dashboard_agent_listen_port")


def main() -> None:
    # Ray and what it starts write to stdout, too.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    nodes: dict[str, Any] = {}
    cluster = started()
    try:
        start_serve(cluster, int(sys.argv[1]))
        for _ in range(2):
            add(cluster, nodes)
        print(json.dumps({"address": cluster.address, **told(nodes)}), file=answers)
        for line in sys.stdin:
            obey(cluster, nodes, json.loads(line))
            print(json.dumps(told(nodes)), file=answers)
    finally:
        cluster.shutdown()


def started() -> Any:
    """A cluster whose head runs no replicas: what dies with a node is never Ray's own."""
    from ray.cluster_utils import Cluster

    wait_longer()
    return Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **settings()})


def add(cluster: Any, nodes: dict[str, Any]) -> None:
    """A node with room for one replica, and a folder of its own, as on a machine of its own."""
    folder = tempfile.mkdtemp(prefix="n", dir=os.environ["RAY_TMPDIR"])
    node = cluster.add_node(num_cpus=1, wait=True, temp_dir=folder, **settings())
    nodes[node.node_id] = node


def obey(cluster: Any, nodes: dict[str, Any], command: dict[str, Any]) -> None:
    if command["do"] == "add":
        add(cluster, nodes)
    elif command["do"] == "kill":
        cluster.remove_node(nodes.pop(command["node"]), allow_graceful=False)
    else:
        deploy_config(command["config"])


def start_serve(cluster: Any, port: int) -> None:
    """With one proxy, the head's: on one machine those of all nodes would share its port."""
    import ray
    from ray import serve

    ray.init(cluster.address, namespace="serve", log_to_driver=False)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})


def deploy_config(config: dict[str, Any]) -> None:
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    _get_global_client().deploy_apps(ServeDeploySchema(**config), _blocking=True)


def told(nodes: dict[str, Any]) -> dict[str, Any]:
    return {"nodes": list(nodes), "metrics_ports": [node.metrics_export_port for node in nodes.values()]}


def settings() -> dict[str, Any]:
    return {
        # Not 127.0.0.1, which Ray takes for this machine under its other name.
        "node_ip_address": "127.0.0.2",
        "object_store_memory": NODE_MEMORY_BYTES,
        **{name: free_port() for name in PORTS},
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_longer() -> None:
    """A raylet gives its agents 15 s to import all they want, and dies; the other tests may have both cores.

    So it is told their ports, which it waits for, before it starts.
    """
    from ray._private.node import Node
    from ray._raylet import persist_port

    start_raylet = Node.start_raylet

    def start(node: Any, *arguments: Any, **more: Any) -> None:
        for name in PORTS:
            persist_port(node.get_session_dir_path(), node.node_id, name, getattr(node._ray_params, name))
        start_raylet(node, *arguments, **more)

    Node.start_raylet = start


if __name__ == "__main__":
    main()
