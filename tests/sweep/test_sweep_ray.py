"""The sweep on a Ray cluster of several nodes on this machine."""

import builtins
import sys
import threading
import time

import pandas as pd
import pytest
import torch

import sweep
from tests.conftest import sweep_tables

OPTIONS = ["--dataset", "TOY", "--k_text", "1", "3", "--k_audio", "2", "4", "--seeds", "1", "2", "--hidden_dim", "16"]


@pytest.fixture
def options(tmp_path, feature_dir):
    return [*OPTIONS, "--lr", "0.01", "--feature_dir", str(feature_dir), "--save_path", str(tmp_path / "runs")]


@pytest.fixture
def cluster():
    """A head that trains nothing and two nodes with one CPU each."""
    pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
def test_a_node_that_dies_costs_only_its_running_runs(tmp_path, options, cluster, monkeypatch, capsys, call):
    """First, a run that no node can train is refused. Both cases share one cluster, which is slow to start."""
    code, line = call(sweep.main, *options, "--ray", cluster.address, "--gpus_per_run", "0.5")
    assert code == 2
    assert line.endswith("no node of the cluster has 1 CPUs and 0.5 GPUs for a run")
    assert not (tmp_path / "runs" / "TOY").exists() or not list((tmp_path / "runs").rglob("metrics.json"))

    monkeypatch.setattr(sys, "argv", ["sweep.py", *options, "--epochs", "60", "--model_name", "here"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the workers
    try:
        assert sweep.main() == 0
    finally:
        torch.set_num_threads(threads)

    sweep_folder = tmp_path / "runs" / "TOY" / "cluster"
    finished = {}

    def kill_a_node() -> None:
        while not finished:
            finished.update({path: path.stat().st_mtime_ns for path in sweep_folder.glob("k*/seed*/metrics.json")})
            time.sleep(0.01)
        time.sleep(0.3)  # both nodes are in the middle of a run by then
        cluster.remove_node(cluster.nodes[0], allow_graceful=False)

    killer = threading.Thread(target=kill_a_node, daemon=True)
    killer.start()
    monkeypatch.setattr(
        sys, "argv", ["sweep.py", *options, "--epochs", "60", "--model_name", "cluster", "--ray", cluster.address]
    )
    code = sweep.main()
    assert code == 0
    killer.join(60)
    assert "retrying: k" in capsys.readouterr().err  # a run was trained again
    assert 1 <= len(finished) < 8
    assert all(path.stat().st_mtime_ns == at for path, at in finished.items())
    folders = [tmp_path / "runs" / "TOY" / name for name in ("here", "cluster")]
    for here, there in zip(*map(sweep_tables, folders), strict=True):
        pd.testing.assert_frame_equal(here, there)

    assert sweep.main() == 0  # again, on the rest of the cluster: nothing to do
    assert "8 runs, 8 of them already finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    "address, message",
    [
        ("127.0.0.1:1", "no Ray cluster at this address (["),
        ("127.0.0.1:99999", "no Ray cluster at this address ("),
        ("head", "expected host:port of the head node, or auto"),
    ],
)
def test_no_cluster_at_the_address(options, call, address, message):
    pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")
    code, line = call(sweep.main, *options, "--ray", address)
    assert code == 2
    assert f"--ray {address}: {message}" in line


def test_without_ray_the_message_says_what_to_install(options, call, monkeypatch):
    original = builtins.__import__

    def without_ray(name, *args, **kwargs):
        if name == "ray":
            raise ImportError("No module named 'ray'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    code, line = call(sweep.main, *options, "--ray", "auto")
    assert code == 2
    assert line == f"error: --ray: Ray is not installed; run {sys.executable} -m pip install -r requirements-ray.txt"
