"""A web page that predicts emotions. It shows the neighbours behind an answer, and the timeline of a long recording."""

import argparse
import os
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path

from utils.cli import add_device_option, add_run_encoder_options
from utils.errors import InputError, problem_of, run_main
from utils.transcription.config import add_transcribe_options, check_transcripts

TITLE = "CemoBAM: the emotion of a recording"
HELP = """Record or upload speech, and enter its transcript. {without}
**Answer** predicts one emotion for the recording. **Timeline** predicts one for each utterance of a long recording."""
WITHOUT = {  # what happens without a transcript, by whether there is a recogniser
    True: "An empty transcript is recognised. You can correct it and ask again.",
    False: "Without one, the mean text embedding of the training utterances is used (see `--transcribe`).",
}
NEIGHBORS = ["training utterance", "emotion", "transcript", "text cosine", "audio cosine", "attention (%)"]
NEIGHBORS += ["change without it (points)"]
MOMENTS = ["start (s)", "stop (s)", "emotion", "confidence (%)", "transcript"]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--checkpoint", required=True, help="run folder, export, dataset or hub name")
    add_run_encoder_options(parser)
    add_transcribe_options(parser)
    add_device_option(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address; 0.0.0.0 allows other machines (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    args = parser.parse_args()
    if not 0 <= args.port < 65536:
        raise InputError(f"--port {args.port}: must be from 0 to 65535")
    check_transcripts(args)
    return args


def build(model, transcribes: bool, folder: str):
    """Build the page for a :class:`cemobam.Model`. Timelines are written to ``folder``."""
    import gradio as gr

    import cemobam
    from utils.prediction.explanation import SHOWN

    @contextmanager
    def shown_errors(wav: str | None):
        """Show errors of a recording without the paths of this machine."""
        if wav is None:
            raise gr.Error("Record or upload speech first.", duration=5, print_exception=False)
        try:
            yield
        except (cemobam.InputError, OSError) as error:
            problem = problem_of(wav, str(error))
            if problem == str(error):  # not about the recording; the terminal shows it
                raise gr.Error("The request failed. The terminal shows the reason.") from error
            raise gr.Error(f"{Path(wav).name}: {problem}", print_exception=False) from error

    def answer(wav: str | None, text: str) -> tuple:
        with shown_errors(wav):
            found = model.predict(wav, text.strip() or None, explained=True)
        why = found.explanation
        neighbors = [
            [
                Path(each.id).name,
                model.class_names[each.label],
                each.text,
                round(each.text_similarity, 3),
                round(each.audio_similarity, 3),
                round(100 * each.mean_attention, 1),
                round(100 * why.change(each.without), 1),
            ]
            for each in why.neighbors[:SHOWN]
        ]
        parts = {name: each for name, each in why.answers.items() if name != "answer"}
        changes = [f"{name}: {found.emotion} {100 * why.change(each):+.1f} points" for name, each in parts.items()]
        return found.probabilities, found.text or "", "; ".join(changes), neighbors

    def timeline(wav: str | None, progress=gr.Progress()) -> tuple:  # noqa: B008 (where Gradio looks for it)
        rows = []
        with shown_errors(wav):
            stem = Path(tempfile.mkdtemp(dir=folder)) / Path(wav).stem
            for moment in model.timeline(wav, files=stem):
                confidence = round(100 * moment.confidence, 1)
                rows.append([round(moment.start, 2), round(moment.stop, 2), moment.emotion, confidence, moment.text])
                progress((len(rows), None), unit="utterances")
        return f"{stem}.png", rows, [f"{stem}{suffix}" for suffix in (".csv", ".jsonl", ".srt", ".pdf")]

    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}\n{HELP.format(without=WITHOUT[transcribes])}")
        with gr.Row():
            with gr.Column():
                wav = gr.Audio(
                    type="filepath", sources=["upload", "microphone"], label="recording", buttons=["download"]
                )
                text = gr.Textbox(
                    label="transcript", placeholder="leave empty to recognise it" if transcribes else "optional"
                )
                with gr.Row():
                    ask = gr.Button("Answer", variant="primary")
                    draw = gr.Button("Timeline")
            with gr.Column():
                probabilities = gr.Label(label="emotion")
                changes = gr.Textbox(label="change without a part", interactive=False)
        neighbors = gr.Dataframe(headers=NEIGHBORS, label="neighbours behind the answer", wrap=True, interactive=False)
        figure = gr.Image(label="timeline", buttons=["download", "fullscreen"])
        moments = gr.Dataframe(headers=MOMENTS, label="utterances", wrap=True, interactive=False)
        files = gr.File(label="timeline files", file_count="multiple")
        # a transcript belongs to its recording, so it is cleared with it
        wav.clear(lambda: "", outputs=text)
        one = {"concurrency_id": "model", "concurrency_limit": 1}
        ask.click(answer, [wav, text], [probabilities, text, changes, neighbors], api_name="answer", **one)
        draw.click(timeline, [wav], [figure, moments, files], api_name="timeline", **one)
    return page


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that the folder is removed
    folder = tempfile.TemporaryDirectory(prefix="cemobam-")  # for uploads and timelines; removed at the end
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder.name}  # no usage data is sent
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise InputError("gradio is not installed; pip install -r requirements-app.txt") from error
    import cemobam

    model = cemobam.load(
        args.checkpoint,
        transcribe=False if args.transcribe is None else args.transcribe or True,
        device=args.device,
        text_model=args.text_model,
        audio_model=args.audio_model,
        transcripts=args.transcripts,
    )
    try:
        build(model, args.transcribe is not None, folder.name).launch(
            server_name=args.host, server_port=args.port, allowed_paths=[folder.name], show_error=True
        )
    except OSError as error:
        raise InputError(f"--host {args.host} --port {args.port}: cannot be opened ({error})") from error


if __name__ == "__main__":
    run_main(main)
