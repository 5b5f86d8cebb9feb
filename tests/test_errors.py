import os
import signal
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT
from utils.device import pick_device, set_matmul_precision
from utils.errors import InputError, run_main


@pytest.mark.parametrize(
    "error, code, line",
    [
        (InputError("x.pkl: row 3: label 9"), 2, "error: x.pkl: row 3: label 9"),
        (OSError(28, "No space left on device", "best.pt"), 2, "error: best.pt: No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_one_line_and_a_code(capsys, error, code, line):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        run_main(main)
    assert caught.value.code == code
    assert capsys.readouterr().err == line + "\n"


def test_a_reader_that_has_enough_is_no_error():
    code = (
        "from utils.errors import run_main\nrun_main(lambda: [print('line', flush=True) for _ in range(10**5)] and 0)"
    )
    command = f'"{sys.executable}" -c "$CODE" | head -1; exit ${{PIPESTATUS[0]}}'
    environment = {**os.environ, "CODE": code}
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("line\n", "", 128 + signal.SIGPIPE)


def test_a_defect_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_main(lambda: 1 / 0)


def test_success_is_zero():
    with pytest.raises(SystemExit) as caught:
        run_main(lambda: None)
    assert not caught.value.code


def test_cuda_without_cuda_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="--device cuda: torch sees no CUDA device"):
        pick_device("cuda")
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cuda")


def test_tf32_is_refused_without_cuda_and_set_with_it():
    with pytest.raises(InputError, match="--matmul_precision tf32: only a CUDA device has it"):
        set_matmul_precision("tf32", torch.device("cpu"))
    set_matmul_precision("fp32", torch.device("cpu"))
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        for ours, theirs in (("tf32", "tf32"), ("fp32", "ieee")):
            set_matmul_precision(ours, torch.device("cuda"))
            assert matmul.fp32_precision == theirs
    finally:
        matmul.fp32_precision = before
