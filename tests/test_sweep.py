"""The Top-K grid: cells, folder, tables, and the command as a user runs it."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

import sweep
import train
from tests.conftest import ROOT, environment, sweep_tables
from utils.engine import train_epoch
from utils.errors import InputError
from utils.graph_data import find_neighbors, prepare
from utils.sweep import local
from utils.sweep.folder import SweepFolder
from utils.sweep.grid import Cell, SweepData, attempt_cell, grid
from utils.sweep.results import BestSoFar, best_cell, cell_table, report, summary_table, training_command

GRID = ["--k_text", "1", "3", "--k_audio", "2", "4", "--seeds", "1", "2"]
TINY = ["--hidden_dim", "16", "--epochs", "3", "--lr", "0.01"]
CELLS = 8
DESCRIPTION = {"config": {"lr": 0.1}, "data": {}, "class_names": ["a", "b"]}


def result(k_text: int, k_audio: int, seed: int, val: float, test: float) -> dict:
    figures = {split: dict.fromkeys(("wa", "ua", "w_f1"), v) for split, v in (("val", val), ("test", test))}
    return {"k_text": k_text, "k_audio": k_audio, "seed": seed, "selected_epoch": 3, "seconds": 1.5, **figures}


@pytest.fixture
def options(tmp_path, feature_dir):
    """Of a small sweep of TOY in ``tmp_path / "runs"``."""
    return ["--dataset", "TOY", *GRID, *TINY, "--feature_dir", feature_dir, "--save_path", tmp_path / "runs"]


@pytest.fixture
def run_sweep(monkeypatch, capsys):
    """Run the sweep in this process: exit code and what it printed."""

    def run(options: list) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sweep.py", *map(str, options)])
        code = sweep.main()
        return code, capsys.readouterr().out

    return run


def folder_of(tmp_path: Path) -> Path:
    return next((tmp_path / "runs" / "TOY").glob("topk-*"))


def test_grid_goes_seed_by_seed():
    assert [cell.name for cell in grid([1, 2], [3, 4], [5, 6])] == [
        *("k1_3_seed5", "k1_4_seed5", "k2_3_seed5", "k2_4_seed5"),
        *("k1_3_seed6", "k1_4_seed6", "k2_3_seed6", "k2_4_seed6"),
    ]


@pytest.mark.parametrize("scope", ["split", "with_train"])
def test_every_graph_is_a_slice_of_the_same_lists(toy_splits, small_config, scope):
    nodes = find_neighbors(toy_splits["val"], small_config(k_text=9, k_audio=7, graph_scope=scope), toy_splits["train"])
    for k_text, k_audio in ((1, 1), (4, 7), (9, 2)):
        config = small_config(k_text=k_text, k_audio=k_audio, graph_scope=scope)
        sliced = nodes.graph_data(config)
        anew = prepare(toy_splits["val"], config, torch.device("cpu"), toy_splits["train"])
        assert torch.equal(sliced.graph.edge_index, anew.graph.edge_index)
        assert torch.equal(sliced.graph.offsets, anew.graph.offsets)
        assert sliced.context == anew.context == (40 if scope == "with_train" else 0)


def test_the_whole_sweep(tmp_path, options, run_sweep, monkeypatch):
    lists = []
    monkeypatch.setattr(
        "utils.graph_data.neighbor_lists",
        lambda *args, original=find_neighbors.__globals__["neighbor_lists"]: lists.append(args) or original(*args),
    )
    code, output = run_sweep(options)
    assert code == 0
    assert len(lists) == 3  # once a split, not once a cell
    folder = folder_of(tmp_path)
    assert folder.name == "topk-paper-hidden_dim=16-epochs=3-lr=0.01"
    expected = {"cells", "config.json", ".lock", "sweep.csv", "sweep_summary.csv", "topk_grid.png"}
    assert {path.name for path in folder.iterdir()} == expected

    cells = pd.read_csv(folder / "sweep.csv", float_precision="round_trip")
    assert [tuple(row) for row in cells[["k_text", "k_audio", "seed"]].to_numpy()] == [
        (t, a, s) for t in (1, 3) for a in (2, 4) for s in (1, 2)
    ]
    for row in cells.to_dict("records"):
        found = json.loads((folder / "cells" / f"k{row['k_text']}_{row['k_audio']}_seed{row['seed']}.json").read_text())
        for split in ("val", "test"):
            for name in ("wa", "ua", "w_f1"):
                assert row[f"{split}_{name}"] == found[split][name]
        assert row["seconds"] > 0
    summary = pd.read_csv(folder / "sweep_summary.csv")
    first = cells[:2]
    assert (summary["seeds"] == 2).all()
    assert summary["test_ua_mean"][0] == pytest.approx(first["test_ua"].mean())
    assert summary["test_ua_std"][0] == pytest.approx(abs(first["test_ua"].diff()[1]) / 2**0.5)
    best = summary.sort_values(["val_w_f1_mean"], ascending=False, kind="stable").iloc[0]
    line = next(line for line in output.splitlines() if line.startswith("best on validation"))
    assert line.split()[3:5] == [str(int(best["k_text"])), str(int(best["k_audio"]))]
    assert f"{100 * best['test_wa_mean']:.2f}" in line


def test_the_printed_line_trains_the_chosen_cell_to_the_same_figures(tmp_path, options, run_sweep, monkeypatch):
    _, output = run_sweep([*options, "--profile", "official", "--dropout", "0.1"])
    words = shlex.split(output.split("train the chosen cell with: ")[1].splitlines()[0])
    assert words[:3] == ["bash", "run_training.sh", "TOY"]
    monkeypatch.setattr(sys, "argv", ["train.py", "--dataset", *words[2:]])
    train.main()
    run = next(p for p in (tmp_path / "runs" / "TOY").iterdir() if p.name.startswith("official"))
    k = [int(words[words.index(name) + 1]) for name in ("--k_text", "--k_audio")]
    assert run.name.startswith(f"official-k_text={k[0]}-k_audio={k[1]}-")
    for seed in (1, 2):
        cell = json.loads((folder_of(tmp_path) / "cells" / f"k{k[0]}_{k[1]}_seed{seed}.json").read_text())
        trained = json.loads((run / f"seed{seed}" / "metrics.json").read_text())
        assert all(cell[name] == trained[name] for name in ("selected_epoch", "val", "test"))


def test_profile_official_decays_as_the_published_sweep(tmp_path, options, run_sweep):
    """DESIGN.md section 4: a factor of 0.3 in its training, of 0.5 in its sweep."""
    _, output = run_sweep([*options, "--profile", "official"])
    (folder,) = (path for path in (tmp_path / "runs" / "TOY").iterdir() if path.name.startswith("topk-official"))
    assert json.loads((folder / "config.json").read_text())["config"]["lr_decay"] == 0.5
    assert "--lr_decay 0.5" in output
    _, output = run_sweep([*options, "--profile", "official", "--lr_decay", "0.3"])
    assert "--lr_decay" not in output.split("train the chosen cell with")[1]


def test_validation_chooses_and_the_optimism_of_the_test_split_is_said():
    results = [result(1, 1, s, 0.7, 0.5) for s in (1, 2)] + [result(1, 2, s, 0.6, 0.9) for s in (1, 2)]
    summary = summary_table(cell_table(results))
    assert best_cell(summary, 2)["k_audio"] == 1
    text = report(summary, "IEMOCAP", 2)
    assert "warning: chosen on the test split it would be k_text 1, k_audio 2" in text
    assert "40.00 points of optimism" in text
    assert "the paper's best" not in text  # not in this grid
    half = [*results, result(7, 8, 1, 0.1, 0.1)]
    assert "the paper's best" not in report(summary_table(cell_table(half)), "IEMOCAP", 2)
    whole = summary_table(cell_table([*half, result(7, 8, 2, 0.1, 0.1)]))
    assert re.search("the paper's best +7 +8 +10\\.00", report(whole, "IEMOCAP", 2))
    assert "the paper's best" not in report(whole, "DEMO", 2)  # which the paper never saw


def test_equal_cells_and_incomplete_ones():
    tied = [result(t, a, 1, 0.5, 0.5) for t, a in ((3, 1), (1, 3), (2, 1), (9, 9))]
    chosen = best_cell(summary_table(cell_table(tied)), 1)
    assert (chosen["k_text"], chosen["k_audio"]) == (2, 1)  # the fewest neighbours
    failed = {"k_text": 5, "k_audio": 5, "seed": 2, "error": "InputError: loss"}
    results = [result(5, 5, 1, 0.9, 0.9), failed, *(result(1, 1, s, 0.5, 0.5) for s in (1, 2))]
    summary = summary_table(cell_table(results))
    assert best_cell(summary, 2)["k_text"] == 1  # a lucky half is not chosen
    assert summary["seeds"].tolist() == [2, 1]
    assert "no cell has all 3 seeds" in report(summary, "TOY", 3)


def test_best_so_far_compares_by_the_seeds_that_every_cell_has():
    best = BestSoFar([result(1, 1, 1, 0.5, 0), result(2, 2, 1, 0.9, 0), result(1, 1, 2, 1.0, 0)])
    assert str(best) == "best k 2, 2: val w-F1 90.0 (1 seed)"  # the second seed's pass has only begun
    best.add(result(2, 2, 2, 0.8, 0))
    assert str(best) == "best k 2, 2: val w-F1 85.0 (2 seeds)"
    assert str(BestSoFar([])) == ""


def test_training_command_is_quoted():
    best = summary_table(cell_table([result(3, 4, 1, 0.5, 0.5)])).iloc[0]
    line = training_command(best, "MY", {"lr": 0.01, "seeds": [1, 2], "feature_dir": "my files"})
    assert line == "bash run_training.sh MY --k_text 3 --k_audio 4 --lr 0.01 --seeds 1 2 --feature_dir 'my files'"


def fail_on(monkeypatch, error: Exception, k_audio: int) -> None:
    """Every cell with this k_audio and seed 1 fails in its second epoch."""

    def epoch(state, data, val, config):
        if state.epoch == 1 and config.k_audio == k_audio and torch.initial_seed() == 1:
            raise error
        return train_epoch(state, data, val, config)

    monkeypatch.setattr("utils.engine.train_epoch", epoch)


@pytest.mark.parametrize(
    "error, message",
    [
        (InputError("epoch 2: the training loss is nan; try a smaller --lr"), "InputError: epoch 2: the training loss"),
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"),
            "OutOfMemoryError: CUDA out of memory. T",
        ),
        (MemoryError(), "MemoryError: no message"),
    ],
)
def test_a_failed_cell_is_named_the_others_go_on_and_it_is_tried_again(
    tmp_path, options, run_sweep, monkeypatch, error, message
):
    fail_on(monkeypatch, error, k_audio=4)
    code, output = run_sweep(options)
    assert code == 1
    assert f"failed: k_text 1, k_audio 4, seed 1: {message}" in output
    assert "2 of 8 cells failed" in output
    cells = pd.read_csv(folder_of(tmp_path) / "sweep.csv")
    failed = cells[cells["error"].notna()]
    assert failed[["k_text", "k_audio", "seed"]].to_numpy().tolist() == [[1, 4, 1], [3, 4, 1]]
    assert failed["error"].str.startswith(message).all()
    assert failed[["val_wa", "test_w_f1", "seconds"]].isna().all(axis=None)
    assert cells.loc[cells["error"].isna(), "test_wa"].notna().all()
    monkeypatch.undo()
    kept = {p: p.stat().st_mtime_ns for p in (folder_of(tmp_path) / "cells").iterdir()}
    monkeypatch.setattr(sys, "argv", ["sweep.py", *map(str, options)])
    assert sweep.main() == 0
    again = {p.name for p, at in kept.items() if p.stat().st_mtime_ns != at}
    assert again == {"k1_4_seed1.json", "k3_4_seed1.json"}


def test_a_loss_that_is_not_finite_ends_the_sweep_with_every_cell_named(options, run_sweep):
    code, output = run_sweep([*options, "--lr", "1e30"])
    assert code == 1
    assert "no cell has all 2 seeds" in output
    assert "8 of 8 cells failed" in output
    assert re.search(
        r"failed: k_text 3, k_audio 4, seed 2: InputError: epoch \d: the (training|validation) loss", output
    )


def test_a_test_loss_that_is_not_finite_is_a_failed_cell_too(tmp_path, options, run_sweep, monkeypatch):
    from utils import engine

    def figures_of(logits, data, original=engine._figures):
        figures = original(logits, data)
        return {**figures, "loss": float("inf")} if data is broken[0] else figures

    broken = [None]
    original = engine.evaluate_selected
    monkeypatch.setattr(engine, "_figures", figures_of)

    def evaluate_selected(state, val, test):
        broken[0] = test
        return original(state, val, test)

    monkeypatch.setattr("utils.sweep.grid.evaluate_selected", evaluate_selected)
    code, output = run_sweep(options)
    assert code == 1
    assert re.search(r"failed: k_text 1, k_audio 2, seed 1: InputError: epoch \d: the test loss is inf", output)


def test_a_gpu_in_error_ends_the_sweep_and_fails_no_cell(monkeypatch):
    def broken(*args):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("utils.sweep.grid.train_cell", broken)
    with pytest.raises(torch.AcceleratorError):
        attempt_cell(SweepData(None, {}, 4), Cell(1, 2, 3), torch.device("cpu"))


def test_errors_of_the_program_are_not_taken_for_failed_cells(monkeypatch):
    monkeypatch.setattr("utils.sweep.grid.train_cell", lambda *args: {}["no such key"])
    with pytest.raises(KeyError):
        attempt_cell(SweepData(None, {}, 4), Cell(1, 2, 3), torch.device("cpu"))


def test_a_second_command_trains_only_what_is_new(tmp_path, options, run_sweep, monkeypatch):
    run_sweep(options)
    trained = []
    original = local.attempt_cell
    monkeypatch.setattr(local, "attempt_cell", lambda *args: trained.append(args[1]) or original(*args))
    code, output = run_sweep([*options, "--k_text", "3", "2"])
    assert code == 0
    assert {cell.k_text for cell in trained} == {2}
    assert "8 cells, 4 of them finished before" in output
    assert set(pd.read_csv(folder_of(tmp_path) / "sweep.csv")["k_text"]) == {2, 3}  # those asked for


BAD = {
    "k of 0": (["--k_text", "0"], "--k_text 0: must be distinct, from 1 on"),
    "k twice": (["--k_audio", "2", "2"], "--k_audio 2 2: must be distinct"),
    "k too large": (["--k_text", "1", "24"], r"--k_text 24: .*_val\.pkl has 24 utterances, so that each has 23"),
    "missing file": (["--test_path", "nowhere.pkl"], r"nowhere\.pkl: no such file"),
    "same seed twice": (["--seeds", "1", "1"], "--seeds 1 1: must be distinct"),
    "no cluster": (["--gpus_per_cell", "0.5"], "--cpus_per_cell and --gpus_per_cell: only with --ray"),
    "no CPU": (["--ray", "auto", "--cpus_per_cell", "0"], "--cpus_per_cell 0: must be at least 1"),
    "GPU and a half": (["--ray", "auto", "--gpus_per_cell", "1.5"], "--gpus_per_cell 1.5: a fraction of 1, or a whole"),
    "device of a cluster": (["--ray", "auto", "--device", "cpu"], "--device cpu: with --ray, --gpus_per_cell says it"),
}


@pytest.mark.parametrize("extra, message", BAD.values(), ids=BAD)
def test_bad_options_end_in_one_line_and_leave_nothing(tmp_path, options, call, extra, message):
    code, line = call(sweep.main, *options, *extra)
    assert code == 2
    assert re.search(message, line)
    assert not (tmp_path / "runs").exists()


def test_another_configuration_or_data_is_refused(tmp_path, options, run_sweep, call):
    run_sweep([*options, "--model_name", "mine"])
    for extra, message in (
        (["--dropout", "0.5"], r"mine: holds a run of another configuration \(dropout was 0\.3, now 0\.5\)"),
        (["--train_path", options[options.index("--feature_dir") + 1] / "TOY_BERT_WAV2VEC_test.pkl"], "the train data"),
    ):
        code, line = call(sweep.main, *options, "--model_name", "mine", *extra)
        assert code == 2
        assert re.search(message, line)


@pytest.mark.parametrize("content", ["{", "{}", '{"k_text": 1, "k_audio": 2, "seed": 2, "error": "of another cell"}'])
def test_a_damaged_cell_file_is_named(tmp_path, content):
    folder = SweepFolder(tmp_path, DESCRIPTION)
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "k1_2_seed3.json").write_text(content)
    with pytest.raises(InputError, match=r"k1_2_seed3\.json: not "):
        folder.read(Cell(1, 2, 3))


# A sweep whose cells take no time but leave a line in a file, and where one cell of one process never ends.
STUB = """
import os, sys, time
sys.path.insert(0, {root!r})
import sweep
from utils.sweep import local
def attempt(data, cell, device, on_epoch):
    with open({log!r}, "a") as log:
        log.write(f"{{cell.name}} {{name}}\\n")
    while name == "hung" and cell.name == "k1_4_seed1":
        time.sleep(0.1)
    return {{**vars(cell), "selected_epoch": 1, "seconds": 1.0,
            **{{split: dict.fromkeys(("wa", "ua", "w_f1"), cell.k_text / 10) for split in ("val", "test")}}}}
local.attempt_cell = attempt
name = sys.argv.pop(1)
sys.exit(sweep.main())
"""


def wait_for(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_at_any_moment_and_gone_on_with(tmp_path, options):
    """SIGKILL in the middle of a cell: what was finished stays, and the CSVs become those of an undisturbed sweep."""

    def start(name: str) -> subprocess.Popen:
        command = ["bash", ROOT / "selected_topK.sh", *options[1:], "--epochs", "30", "--model_name", name]
        return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    whole, stopped = (tmp_path / "runs" / "TOY" / name for name in ("whole", "stopped"))
    undisturbed = start("whole")
    process = start("stopped")
    wait_for(lambda: len(list((stopped / "cells").glob("*.json"))) >= 2, process)
    process.kill()
    process.communicate()
    finished = {path: path.stat().st_mtime_ns for path in (stopped / "cells").glob("*.json")}
    assert 2 <= len(finished) < CELLS
    process = start("stopped")
    output = process.communicate()[0].decode()
    assert process.returncode == 0
    assert f"{CELLS} cells, {len(finished)} of them finished before" in output
    assert all(path.stat().st_mtime_ns == at for path, at in finished.items())
    undisturbed.communicate()
    assert all(a.equals(b) for a, b in zip(sweep_tables(whole), sweep_tables(stopped), strict=True))
    assert not [path for path in stopped.rglob(".*") if path.name != ".lock"]  # no half-written file


def test_interrupt_says_what_is_kept(tmp_path, options):
    command = [sys.executable, ROOT / "sweep.py", *options, "--epochs", "200"]
    process = subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )
    wait_for(lambda: len(list((tmp_path / "runs").glob("TOY/*/cells/*.json"))) >= 1, process)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1].decode()
    assert process.returncode == 130
    assert re.search(r"\d of 8 cells are done and kept; the same command goes on", error)


def test_two_at_once_share_the_cells_and_take_over_from_the_killed(tmp_path, options):
    """The first hangs in a cell; the second does all others, waits, and trains that one when the first is killed."""
    log = tmp_path / "log"
    script = STUB.format(root=str(ROOT), log=str(log))

    def start(name: str) -> subprocess.Popen:
        command = [sys.executable, "-c", script, name, *map(str, options)]
        return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def lines() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    hung = start("hung")
    wait_for(lambda: "k1_4_seed1 hung" in lines(), hung)
    second = start("second")
    wait_for(lambda: len(lines()) == CELLS, second)
    time.sleep(0.5)
    assert second.poll() is None  # it waits for the cell that the other has
    assert len(lines()) == CELLS
    hung.kill()
    hung.communicate()
    assert second.wait(60) == 0
    by_second = {f"{cell.name} second" for cell in grid([1, 3], [2, 4], [1, 2])} - {"k1_2_seed1 second"}
    assert sorted(lines()) == sorted([*by_second, "k1_2_seed1 hung", "k1_4_seed1 hung"])
    assert len(pd.read_csv(folder_of(tmp_path) / "sweep.csv")) == CELLS
