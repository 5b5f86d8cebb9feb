import dataclasses
import json

import pytest
import torch

from utils.checkpoints import find_checkpoints, load_trained
from utils.engine import evaluate, fit
from utils.errors import InputError
from utils.experiment import Experiment, open_run, run_seed
from utils.graph_data import prepare
from utils.interrupts import Interrupted
from utils.run_summary import finished_seeds, summarise

CPU = torch.device("cpu")


@pytest.fixture
def experiment(tmp_path, toy_splits, small_config):
    """Makes an experiment in a folder of its own; options are fields of the configuration."""

    def make(folder: str = "run", **options) -> Experiment:
        config = small_config(dataset="TOY", epochs=8, **options)
        return Experiment(config, tmp_path / folder, toy_splits, ("a", "b", "c", "d"), CPU)

    return make


def run(experiment: Experiment, seed: int = 3) -> dict:
    train, val = (prepare(experiment.splits[s], experiment.config, CPU) for s in ("train", "val"))
    run_seed(experiment, seed, train, val, "seed")
    return json.loads((experiment.seed_folder(seed) / "metrics.json").read_text())


def summary_of(experiment: Experiment, per_seed: dict[int, dict]) -> dict:
    train, val = (prepare(experiment.splits[s], experiment.config, CPU) for s in ("train", "val"))
    return summarise(
        experiment.folder,
        experiment.config,
        experiment.class_names,
        per_seed,
        {"train": train, "val": val, "test": experiment.test},
    )


def log_of(experiment: Experiment, seed: int = 3) -> list[dict]:
    lines = (experiment.seed_folder(seed) / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def weights_of(experiment: Experiment, name: str, seed: int = 3) -> dict:
    return torch.load(experiment.seed_folder(seed) / name, weights_only=True)["weights"]


KEPT = {"config.json", "log.jsonl", "metrics.json", "test_predictions.csv"}


def test_without_weights_the_figures_are_the_same(experiment):
    e = experiment("with")
    light = dataclasses.replace(experiment("without"), keep_weights=False)
    assert run(e) == run(light)
    assert {p.name for p in light.seed_folder(3).iterdir()} == KEPT
    assert run(light) == run(e)  # finished before
    run(dataclasses.replace(e, keep_weights=False))
    assert (e.seed_folder(3) / "best.pt").is_file()  # what another command kept is not taken away
    (light.folder / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="its seeds keep no weights"):
        find_checkpoints(str(light.folder), light.folder)
    with pytest.raises(InputError, match="nor a dataset with a finished run"):
        find_checkpoints(light.folder.parent.name, light.folder.parent.parent)  # so that it is no latest run either


def test_run_folder_holds_what_the_layout_promises(experiment):
    e = experiment()
    metrics = run(e)
    folder = e.seed_folder(3)
    assert {p.name for p in folder.iterdir()} == {*KEPT, "best.pt", "last.pt"}
    rows = (folder / "test_predictions.csv").read_text().split()
    assert rows[0] == "label,prediction"
    pairs = [tuple(map(int, row.split(","))) for row in rows[1:]]
    assert [label for label, _ in pairs] == e.splits["test"].label.tolist()
    assert sum(label == prediction for label, prediction in pairs) / len(pairs) == metrics["test"]["wa"]
    description = json.loads((folder / "config.json").read_text())
    assert description["config"] == dataclasses.asdict(e.config)
    assert description["class_names"] == ["a", "b", "c", "d"]
    assert (description["text_dim"], description["audio_dim"]) == (6, 5)
    assert description["data"]["test"]["sha256"] == e.splits["test"].sha256
    assert {"python", "torch", "torch-geometric", "numpy"} <= description["versions"].keys()
    assert description["command"]
    assert [line["epoch"] for line in log_of(e)] == list(range(1, 9))
    for name, epoch in (("best.pt", metrics["selected_epoch"]), ("last.pt", 8)):
        saved = torch.load(folder / name, weights_only=True)
        assert saved["epoch"] == epoch
        assert saved["config"] == description["config"]
        assert "training" not in saved


def test_metrics_are_those_of_the_best_validation_epoch(experiment):
    e = experiment(selection="best_val_wf1")
    metrics = run(e)
    scores = [line["val_w_f1"] for line in log_of(e)]
    assert metrics["selected_epoch"] == 1 + scores.index(max(scores))
    assert metrics["val"]["w_f1"] == max(scores)
    trained = load_trained(e.seed_folder(3) / "best.pt")
    assert evaluate(trained.model, e.test) == metrics["test"]


def test_test_split_is_used_once_and_last(experiment, monkeypatch):
    e = experiment()
    epochs_done = []
    monkeypatch.setattr(
        "utils.experiment.prepare",
        lambda *args: epochs_done.append(len(log_of(e))) or prepare(*args),
    )
    run(e)
    assert epochs_done == [8]


def test_same_seed_writes_the_same_metrics(experiment):
    first, second = experiment("a"), experiment("b")
    run(first)
    run(second)
    assert (first.seed_folder(3) / "metrics.json").read_bytes() == (second.seed_folder(3) / "metrics.json").read_bytes()
    assert log_of(first) == log_of(second)


@pytest.mark.parametrize("options", [{}, {"profile": "official"}])
def test_interrupted_and_resumed_is_uninterrupted(experiment, monkeypatch, options):
    whole, stopped = experiment("whole", **options), experiment("stopped", **options)
    expected = run(whole)

    def interrupted_fit(state, train, val, config, on_epoch):
        fit(state, train, val, dataclasses.replace(config, epochs=5), on_epoch)
        raise Interrupted

    monkeypatch.setattr("utils.experiment.fit", interrupted_fit)
    with pytest.raises(Interrupted):
        run(stopped)
    monkeypatch.undo()
    folder = stopped.seed_folder(3)
    assert len(log_of(stopped)) == 5
    assert not (folder / "metrics.json").exists()
    load_trained(folder / "best.pt")  # what there is so far can be evaluated
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"epoch": 6, "val')  # a kill in the middle of a line, after the last save

    whole_log = (folder / "log.jsonl").read_text()
    (folder / "log.jsonl").write_text("".join(whole_log.splitlines(keepends=True)[:3]))
    with pytest.raises(InputError, match=r"log\.jsonl: 3 epochs, last\.pt has 5; --overwrite starts anew"):
        run(stopped)
    (folder / "log.jsonl").write_text(whole_log)
    assert run(stopped) == expected
    assert log_of(stopped) == log_of(whole)
    for name in ("best.pt", "last.pt"):
        assert all(torch.equal(t, weights_of(whole, name)[n]) for n, t in weights_of(stopped, name).items())


def test_killed_before_the_first_save_starts_again(experiment):
    whole, killed = experiment("whole"), experiment("killed")
    expected = run(whole)
    run(killed)
    for name in ("metrics.json", "last.pt", "best.pt"):
        (killed.seed_folder(3) / name).unlink()
    assert run(killed) == expected
    assert log_of(killed) == log_of(whole)


def test_killed_after_training_only_evaluates(experiment, monkeypatch):
    e = experiment()

    def disk_full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("utils.experiment.write_json", disk_full)
    with pytest.raises(OSError, match="No space left"):
        run(e)
    monkeypatch.undo()
    monkeypatch.setattr("utils.engine.train_step", lambda *args: pytest.fail("an epoch was trained again"))
    metrics = run(e)
    assert metrics["test"]["wa"] > 0


def test_a_finished_seed_is_kept(experiment, monkeypatch):
    e = experiment()
    expected = run(e)
    monkeypatch.setattr("utils.experiment.fit", lambda *args: pytest.fail("trained again"))
    assert run(e) == expected


def test_open_run_asks_what_to_do_with_an_unfinished_seed(experiment):
    e = experiment()
    open_run(e, [3], resume=False, overwrite=False)
    run(e)
    open_run(e, [3, 4], resume=False, overwrite=False)  # finished
    (e.seed_folder(3) / "metrics.json").unlink()
    with pytest.raises(InputError, match="holds an unfinished run; add --resume to go on, or --overwrite"):
        open_run(e, [3], resume=False, overwrite=False)
    assert (e.seed_folder(3) / "best.pt").exists()
    open_run(e, [3], resume=True, overwrite=False)
    open_run(e, [3], resume=False, overwrite=True)
    assert not e.seed_folder(3).exists()


def test_open_run_refuses_another_configuration_before_anything_is_written(experiment):
    run(experiment())
    other = experiment(lr=0.5)
    for resume in (False, True):
        with pytest.raises(InputError, match=r"another configuration \(lr was 0\.01, now 0\.5\).*--model_name"):
            open_run(other, [1, 3], resume=resume, overwrite=False)
    assert not other.seed_folder(1).exists()


def test_open_run_looks_at_every_seed_of_the_folder(experiment):
    run(experiment(), seed=3)
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"seed3: holds a run of another configuration \(lr was 0\.01, now 0\.5\)"):
            open_run(experiment(lr=0.5), [4], resume=False, overwrite=overwrite)
    open_run(experiment(lr=0.5), [3], resume=False, overwrite=True)  # nothing else is there


def test_a_second_interrupt_saves_no_torn_state(experiment, monkeypatch):
    e = experiment()

    def torn(state, *args):
        raise KeyboardInterrupt  # in the middle of a step

    monkeypatch.setattr("utils.experiment.fit", torn)
    with pytest.raises(KeyboardInterrupt):
        run(e)
    assert not (e.seed_folder(3) / "last.pt").exists()
    assert not (e.seed_folder(3) / "best.pt").exists()


def test_finished_seeds_are_those_of_every_command(experiment):
    e = experiment()
    expected = {seed: run(e, seed) for seed in (10, 3)}
    (e.folder / "seed3_copy").mkdir()
    assert finished_seeds(e.folder, 8) == expected
    assert list(finished_seeds(e.folder, 8)) == [3, 10]
    path = e.seed_folder(3) / "metrics.json"
    path.write_text('{"seed": 3}')
    with pytest.raises(InputError, match=r"seed3/metrics.json: not the figures of a run \(KeyError"):
        finished_seeds(e.folder, 8)


def test_last_checkpoint_of_another_configuration_is_refused(experiment):
    e, other = experiment(), experiment("other", lr=0.5)
    run(e)
    run(other)
    (e.seed_folder(3) / "metrics.json").unlink()
    (e.seed_folder(3) / "last.pt").write_bytes((other.seed_folder(3) / "last.pt").read_bytes())
    with pytest.raises(InputError, match=r"last\.pt: a checkpoint of another configuration"):
        run(e)


def test_summary(experiment):
    e = experiment()
    per_seed = {seed: run(e, seed) for seed in (3, 4)}
    summary_of(e, per_seed)
    summary = json.loads((e.folder / "summary.json").read_text())
    values = [per_seed[seed]["test"]["wa"] for seed in (3, 4)]
    assert summary["test"]["seeds"]["4"] == per_seed[4]["test"]
    assert summary["test"]["mean"]["wa"] == pytest.approx(sum(values) / 2)
    assert summary["test"]["std"]["wa"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert summary["config"] == dataclasses.asdict(e.config)


def test_find_checkpoints(experiment, tmp_path, capsys):
    e = experiment("TOY/first")
    summary_of(e, {seed: run(e, seed) for seed in (3, 10)})
    best = [e.seed_folder(seed) / "best.pt" for seed in (3, 10)]
    assert find_checkpoints(str(best[0]), tmp_path) == (best[0].parent, [best[0]])
    assert find_checkpoints(str(best[0].parent), tmp_path) == (best[0].parent, [best[0]])
    assert find_checkpoints(str(e.folder), tmp_path) == (e.folder, best)
    assert find_checkpoints("TOY", tmp_path) == (e.folder, best)
    (e.seed_folder(10) / "metrics.json").unlink()
    assert find_checkpoints("TOY", tmp_path) == (e.folder, best[:1])
    assert "not finished, left out: seed10" in capsys.readouterr().err
    with pytest.raises(InputError, match="NOTHING: neither a file or folder, nor a dataset with a finished run"):
        find_checkpoints("NOTHING", tmp_path)
    (e.seed_folder(3) / "metrics.json").unlink()
    with pytest.raises(InputError, match="no finished seed"):
        find_checkpoints(str(e.folder), tmp_path)


def test_latest_run_of_a_dataset_is_taken_and_said(experiment, tmp_path, capsys):
    for name in ("TOY/b", "TOY/a"):
        e = experiment(name)
        summary_of(e, {3: run(e)})
    assert find_checkpoints("TOY", tmp_path)[0] == tmp_path / "TOY" / "a"
    assert "2 runs in" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s["weights"].popitem(), "the weights do not fit their configuration"),
        (lambda s: s.update(text_dim="x"), "its dimensions are text 'x', audio 5"),
        (lambda s: s.update(text_dim=7), "the weights do not fit their configuration"),
        (lambda s: s["config"].update(heads=2), "the weights do not fit their configuration"),
        (lambda s: s["config"].pop("heads"), "written by another version"),
        (lambda s: s["config"].update(lr=-1.0), "--lr -1.0"),
    ],
)
def test_checkpoint_whose_parts_do_not_agree(experiment, change, message):
    e = experiment()
    run(e)
    path = e.seed_folder(3) / "best.pt"
    saved = torch.load(path, weights_only=True)
    change(saved)
    torch.save(saved, path)
    with pytest.raises(InputError, match=rf"best\.pt: {message}"):
        load_trained(path)
