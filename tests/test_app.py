"""The page, queried by a program and in a real browser, compared with predict.py."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import app
import cemobam
from tests.conftest import ROOT, SHARED, environment
from tests.prediction.conftest import answers, ask

gradio_client = pytest.importorskip("gradio_client", reason="Gradio is not installed (requirements-app.txt)")


@pytest.fixture
def page(trained, tones, monkeypatch):
    """The address of the page of a run on TONES."""
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    model = cemobam.load(trained, device="cpu", transcripts=tones / "transcripts.csv")
    blocks = app.build(model, False, str(tones))
    _, address, _ = blocks.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, allowed_paths=[str(tones)], show_error=True
    )
    yield address
    blocks.close()


@pytest.mark.slow
def test_the_page_answers_as_predict_py_does(page, tones, run, trained):
    wav = tones / "corpus" / "s0" / "00.wav"
    (expected,) = answers(ask(run, trained, "--wav", wav, "--text", "aaa 0", "--explain", "--json")[1])
    client = gradio_client.Client(page, verbose=False)
    label, text, changes, neighbors = client.predict(gradio_client.handle_file(wav), "aaa 0", api_name="/answer")
    found = {each["label"]: each["confidence"] for each in label["confidences"]}
    assert found == pytest.approx(expected["probabilities"], abs=1e-5)
    assert (label["label"], text) == (expected["emotion"], "aaa 0")
    assert [part.split(":")[0] for part in changes.split("; ")] == ["without text", "without audio", "without graph"]
    why = expected["explanation"]["neighbors"]
    assert [row[1] for row in neighbors["data"]] == [each["emotion"] for each in why]

    soundfile.write(tones / "silence.wav", np.zeros(16_000), 16_000)
    with pytest.raises(gradio_client.exceptions.AppError, match=r"^silence.wav: contains only silence"):
        client.predict(gradio_client.handle_file(tones / "silence.wav"), "", api_name="/answer")


@pytest.mark.slow
@pytest.mark.drawn
def test_the_page_draws_the_timeline_of_predict_py(page, tones, run, trained):
    corpus = SHARED / "data" / "ravdess" / "Actor_01"
    if not corpus.is_dir():
        pytest.skip(f"no speech at {corpus}")
    wav = corpus / "03-01-01-01-01-01-01.wav"
    code, _, err = ask(run, trained, "--wav", wav, "--timeline", tones / "out")
    assert code == 0, err
    client = gradio_client.Client(page, verbose=False)
    figure, moments, files = client.predict(gradio_client.handle_file(wav), api_name="/timeline")
    expected = [json.loads(line) for line in (tones / "out" / f"{wav.stem}.jsonl").read_text().splitlines()]
    assert expected
    assert [(row[0], row[2]) for row in moments["data"]] == [
        (round(each["start"], 2), each["emotion"]) for each in expected
    ]
    assert [path.rpartition(".")[2] for path in files] == ["csv", "jsonl", "srt", "pdf"]
    assert Path(files[0]).read_text() == (tones / "out" / f"{wav.stem}.csv").read_text()
    assert Path(figure["path"] if isinstance(figure, dict) else figure).stat().st_size > 10_000


@pytest.mark.slow
def test_a_browser_uploads_a_recording_and_sees_the_answer(page, tones, run, trained, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine (Debian's package chromium)")
    wav = tones / "corpus" / "s0" / "00.wav"
    (expected,) = answers(ask(run, trained, "--wav", wav, "--text", "aaa 0", "--json")[1])
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = browser.new_page()
        view.goto(page)
        view.get_by_role("button", name="Answer").click()
        view.get_by_text("Record or upload speech first.").wait_for()
        view.locator("input[type=file]").first.set_input_files(wav)
        view.locator("audio[src]").first.wait_for(state="attached")
        view.get_by_label("transcript").fill("aaa 0")
        view.get_by_role("button", name="Answer").click()
        view.get_by_test_id("label-output-value").wait_for()
        assert view.get_by_test_id("label-output-value").inner_text().strip() == expected["emotion"]
        shown = view.locator(".confidence-set").all_inner_texts()
        percents = {name: 100 * value for name, value in expected["probabilities"].items()}
        for line in shown:
            name, percent = line.split("\n")[0], line.split("\n")[-1]
            assert float(percent.strip("%")) == pytest.approx(percents[name], abs=0.51)
        assert len(shown) == 3
        view.get_by_text("without graph").or_(view.get_by_label("change without a part")).first.wait_for()
        browser.close()


def test_bad_options_are_said_in_one_line(run, tmp_path):
    code, _, err = run(app.main, "--checkpoint", tmp_path / "none")
    assert (code, "neither a file or folder" in err.splitlines()[-1]) == (2, True)
    assert run(app.main, "--checkpoint", "x", "--port", 70_000)[2] == "error: --port 70000: must be from 0 to 65535\n"
    message = "gradio is not installed; pip install -r requirements-app.txt"
    hidden = "import sys; sys.modules['gradio'] = None; sys.argv = ['app.py', '--checkpoint', 'x']; import app; "
    hidden += "from utils.errors import run_main; run_main(app.main)"
    done = subprocess.run([sys.executable, "-c", hidden], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")


def test_sigterm_ends_the_page_as_ctrl_c_does(run, trained, monkeypatch):
    monkeypatch.setattr(app, "build", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    try:
        code, _, err = run(app.main, "--checkpoint", trained)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (code, err.splitlines()[-1]) == (130, "interrupted")
