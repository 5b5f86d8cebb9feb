"""Which device is picked, how it is described, and how it is configured."""

import os
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_geometric

from tests.pretend_cuda import PretendCuda, kept_switches
from utils.device import describe, device_name, pick_device, seed_everything, set_matmul_precision
from utils.errors import InputError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OLD_DRIVER = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver by downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)


@pytest.fixture(autouse=True)
def _switches():
    with kept_switches():
        yield


def test_cuda_without_cuda_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="--device cuda: torch finds no CUDA device; use"):
        pick_device("cuda")
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cuda")


@pytest.mark.parametrize("files, lines", [(["nvidia0", "nvidiactl"], 1), (["dxg"], 1), (["nvidiactl", "null"], 0)])
def test_a_gpu_of_an_old_driver_is_one_line(monkeypatch, capsys, tmp_path, files, lines):
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setattr("utils.device.Path", lambda folder: {"/dev": tmp_path}[folder])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: warnings.warn(OLD_DRIVER, stacklevel=1) or False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pick_device("auto") == CPU
        reason = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040)"
        assert capsys.readouterr().err == f"note: the GPU is not used: {reason}\n" * lines
        with pytest.raises(InputError) as caught:
            pick_device("cuda")
        assert pick_device("cpu") == CPU
    expected = f"--device cuda: torch finds no CUDA device ({reason}); use --device auto or cpu"
    assert (str(caught.value), capsys.readouterr().err) == (expected, "")


@pytest.mark.skipif(any(Path("/dev").glob("nvidia*")), reason="there is a GPU")
def test_without_a_gpu_nothing_is_said(capsys):
    assert pick_device("auto") == CPU
    assert capsys.readouterr() == ("", "")


def test_tf32_is_refused_without_cuda_and_set_with_it():
    with pytest.raises(InputError, match="--matmul_precision tf32: requires a CUDA device"):
        set_matmul_precision("tf32", CPU)
    set_matmul_precision("fp32", CPU)
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    for ours, allowed, theirs, words in (("tf32", True, "tf32", "high"), ("fp32", False, "ieee", "highest")) * 2:
        matmul.fp32_precision = cudnn.conv.fp32_precision = "ieee"  # the older getters then raise
        set_matmul_precision(ours, CUDA)
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (allowed, allowed)
        assert (matmul.fp32_precision, torch.get_float32_matmul_precision()) == (theirs, words)
        assert (cudnn.conv.fp32_precision == "tf32") == allowed
        with PretendCuda():
            assert describe(CUDA) == f"cuda (Pretended GPU, {ours} products)"


def test_a_gpu_is_named_without_its_precision_or_threads():
    with PretendCuda():
        assert (device_name(CUDA), device_name(CPU)) == ("cuda (Pretended GPU)", "cpu")


@pytest.mark.parametrize("strict", [True, False])
def test_a_gpu_is_deterministic_and_a_cpu_is_left_alone(monkeypatch, strict):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    pick_device("cpu", strict)
    assert not torch.are_deterministic_algorithms_enabled()
    with PretendCuda():
        pick_device("auto", strict)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled() != strict
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_every_generator_is_seeded_as_by_pyg():
    drawn = []
    for seeded in (seed_everything, torch_geometric.seed_everything):
        seeded(7)
        drawn.append((random.random(), np.random.random(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]


def test_the_gpus_are_seeded_too(monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    seed_everything(7)
    assert seeds == [7]
