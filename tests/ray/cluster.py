"""A Ray cluster of several nodes on this machine, in a process of its own, which ends with its stdin.

`python cluster.py FOLDER` prints a line of JSON when it is up, and answers each line of JSON: {"do": "add"} and
{"do": "kill", "node": ID}. Ray's threads, warnings and signal handlers stay out of the tests' own process.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

NODE_MEMORY_BYTES = 80 * 1024 * 1024


def main() -> None:
    # Ray and what it starts write to stdout, too.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    nodes: dict[str, Any] = {}
    cluster = started(Path(sys.argv[1]))
    try:
        for _ in range(2):
            add(cluster, nodes)
        print(json.dumps({"address": cluster.address, "nodes": list(nodes)}), file=answers)
        for line in sys.stdin:
            print(json.dumps(obeyed(cluster, nodes, json.loads(line))), file=answers)
    finally:
        cluster.shutdown()


def started(folder: Path) -> Any:
    """A cluster whose head runs no replicas: what dies with a node is never Ray's own."""
    from ray.cluster_utils import Cluster

    return Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "temp_dir": str(folder),
            "node_ip_address": "127.0.0.1",
            "object_store_memory": NODE_MEMORY_BYTES,
        },
    )


def add(cluster: Any, nodes: dict[str, Any]) -> str:
    node = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1", object_store_memory=NODE_MEMORY_BYTES, wait=True)
    nodes[node.node_id] = node
    return str(node.node_id)


def obeyed(cluster: Any, nodes: dict[str, Any], command: dict[str, str]) -> dict[str, Any]:
    if command["do"] == "add":
        return {"node": add(cluster, nodes)}
    cluster.remove_node(nodes.pop(command["node"]), allow_graceful=False)
    return {"nodes": list(nodes)}


if __name__ == "__main__":
    main()
