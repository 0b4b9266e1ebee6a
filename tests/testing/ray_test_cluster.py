# SPDX-License-Identifier: GPL-3.0-or-later
"""A Ray cluster on one machine, whose head and nodes can be added and killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

SMALL = {"object_store_memory": 80 * 2**20}


class RayTestCluster:
    """A head without a GPU, and nodes that declare one GPU each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.open()

    def open(self, **head: Any) -> None:
        head |= {
            **SMALL,
            "num_cpus": 0,
            "num_gpus": 0,
            "include_dashboard": False,
            "node_name": "head",
            "temp_dir": str(self._folder),
        }
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes: dict[str, Any] = {}

    @property
    def address(self) -> str:
        return self._cluster.address

    def add(self, *names: str, **how: Any) -> None:
        for name in names:
            if name not in self._nodes:
                self._nodes[name] = self._cluster.add_node(**SMALL, num_cpus=1, num_gpus=1, node_name=name, **how)

    def kill(self, name: str) -> None:
        """Kill a node by SIGKILL, which other nodes see like a power cut."""
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def kill_head(self) -> None:
        """Kill the head, which ends its nodes, and start a new head with a new node."""
        port = int(self.address.rpartition(":")[2])
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)
        self.close()
        self.open(gcs_server_port=port)
        self.add("left")

    def close(self) -> None:
        self._cluster.shutdown()
