"""The engine on Ray: the same table, two nodes that share the work, and workers that are lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toys import PASSING
from zoo_support import BAD, EXPECTED, environment, performed, statuses, write_zoo

pytestmark = [pytest.mark.grid, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with a processor each, on this machine."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = environment()["PYTHONPATH"]
    node = {"num_cpus": 1, "memory": 4 * 2**30, "object_store_memory": 100 * 2**20}
    made = Cluster(initialize_head=True, head_node_args=node)
    made.add_node(**node)
    ray.init(address=made.address, log_to_driver=False)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def test_two_nodes_share_the_work(cluster: Any, tmp_path: Path) -> None:
    from onnxport_zoo.on_ray import on_ray

    zoo = write_zoo(tmp_path, [*PASSING, *BAD])
    summary = performed(zoo, tmp_path / "a", on_ray(cluster.address), cache=tmp_path / "cache")
    assert summary.performed == 20
    assert statuses(summary) == {name: EXPECTED.get(name, "passed") for name in statuses(summary)}
    nodes = [record["node"] for record in summary.records]
    assert len(set(nodes)) == 2 and min(nodes.count(node) for node in set(nodes)) >= 4
    again = performed(zoo, tmp_path / "b", on_ray(cluster.address), cache=tmp_path / "cache")
    assert (again.performed, again.cached) == (0, 20) and statuses(again) == statuses(summary)


def test_a_worker_that_is_killed_is_replaced(cluster: Any, tmp_path: Path) -> None:
    from onnxport_zoo.on_ray import on_ray

    zoo = write_zoo(tmp_path, ["slow", "relu"])
    mark = tmp_path / "worker"
    with (tmp_path / "toys.py").open("a") as file:
        file.write(
            "\n\ndef slow():\n"
            "    import multiprocessing, pathlib\n"
            f"    mark = pathlib.Path({str(mark)!r})\n"
            "    if not mark.exists():\n"
            "        mark.write_text(str(multiprocessing.parent_process().pid))\n"
            "        time.sleep(3600)\n"
            "    return toy('relu')\n"
        )

    def kill() -> None:
        while not mark.exists() or not mark.read_text():
            time.sleep(0.1)
        os.kill(int(mark.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    summary = performed(zoo, tmp_path / "out", on_ray(cluster.address))
    assert statuses(summary) == {"toys.py:slow": "passed", "toys.py:relu": "passed"}
    assert not killer.is_alive()
