import io
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from utils.errors import InputError, fitting_into_memory, is_printable, printable, run_main, shown


@pytest.mark.parametrize(
    "error, code, line",
    [
        (InputError("x.pkl: row 3: label 9"), 2, "error: x.pkl: row 3: label 9"),
        (OSError(28, "No space left on device", "best.pt"), 2, "error: best.pt: No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "error: out of memory (MemoryError)"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nSee"),
            2,
            "error: out of memory (CUDA out of memory. Tried to allocate 9 GiB.); try --device cpu",
        ),
    ],
)
def test_one_line_and_a_code(capsys, error, code, line):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        run_main(main)
    assert caught.value.code == code
    assert capsys.readouterr().err == line + "\n"


def test_bad_input_found_in_another_process_is_the_same_here():
    error = InputError("x\x1b.pkl: " + 3000 * "x", "add --resume", "or --overwrite")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


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


def test_every_lack_of_memory_is_one_line_with_a_way_out():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.int8)
    for error in (
        caught.value,  # the error of the CPU's allocator
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ):
        with pytest.raises(InputError) as said, fitting_into_memory("a batch", "lower --batch_tokens"):
            raise error
        assert str(said.value) == "a batch does not fit into memory; lower --batch_tokens"
    with pytest.raises(RuntimeError, match="illegal"), fitting_into_memory("a batch", ""):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def test_success_is_zero():
    with pytest.raises(SystemExit) as caught:
        run_main(lambda: None)
    assert not caught.value.code


def script(code: str, redirection: str = "", **variables: str) -> subprocess.CompletedProcess:
    """Run a script's ``main``, given as code, with a redirection of the shell."""
    whole = f"from utils.errors import InputError, run_main\ndef main():\n    {code}\nrun_main(main)"
    command = f'"{sys.executable}" -c "$CODE" {redirection}'
    environment = {**os.environ, "CODE": whole, **variables}
    return subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_output_that_cannot_show_a_sign_shows_its_number():
    done = script("print('1 ± 2', '\\udcff')", PYTHONIOENCODING="ascii")
    assert (done.stdout, done.stderr, done.returncode) == ("1 \\xb1 2 \\udcff\n", "", 0)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_output_is_no_error(closed, tmp_path):
    """A file that is opened next must not become the output."""
    code = f"import tqdm; f = open('{tmp_path}/x', 'w'); print('y', flush=True); list(tqdm.tqdm([1])); f.write('x')"
    done = script(code, closed)
    assert "Error" not in done.stdout + done.stderr
    assert done.returncode == 0
    assert (tmp_path / "x").read_text() == "x"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_to_a_full_disk_is_one_line():
    done = script("print('x')", "> /dev/full", PYTHONUNBUFFERED="")
    assert done.stderr == "error: standard output: No space left on device\n"
    assert done.returncode == 2


def test_a_message_shows_escape_sequences_instead_of_sending_them():
    done = script("raise InputError('x\\x1b[2J\\udcff\\n: ä\\u2028')")
    assert done.stderr == "error: x\\x1b[2J\\udcff\\n: ä\\u2028\n"


def test_values_of_any_size_are_shown_shortened():
    nested = []
    for _ in range(10_000):
        nested = [nested]
    for value in ("x" * 10**6, list(range(10**6)), 10**5000, nested, "\x1b"):
        assert len(shown(value)) < 200
        assert shown(value).isprintable()


def test_words_with_joiners_are_printable():
    """Persian for "bored"; a family emoji of three."""
    for text in ("بی\u200cحوصله", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "a\xa0b"):
        assert is_printable(text)
    for text in ("a\u200b", "\x1b[2J", "\u202egnp.exe", "\udcff", "a\nb", "\ufeff"):
        assert not is_printable(text)
        assert printable(text).isascii()


def test_an_output_that_is_no_text_stream_is_left_as_it_is(monkeypatch):
    """As in a notebook."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with pytest.raises(SystemExit) as caught:
        run_main(lambda: print("1 ± 2"))
    assert not caught.value.code
    assert sys.stdout.getvalue() == "1 ± 2\n"


def test_a_message_that_quotes_a_whole_book_is_shortened():
    message = str(InputError("x.csv: line 2: label " + "x" * 10**6 + " is none of a, b"))
    assert message.startswith("x.csv: line 2: label xxx") and message.endswith("xxx is none of a, b")
    assert len(message) < 2100
