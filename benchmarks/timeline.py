"""Measure how well the utterances of a long recording are found (4 minutes on 2 cores, shared with other work).

    python -m benchmarks.timeline RAVDESS            # a folder with metadata.csv: path, text, emotion, actor
    python -m benchmarks.timeline RAVDESS --actors 01 02 --checkpoint RUN

Utterances in random order, without the silence around them, are joined by pauses of 0.6 to 2 s. Pink noise is added
throughout. An utterance counts as found if at least half of it is inside found utterances. A boundary counts as found
if a found boundary of the same kind (start or stop) is within 0.25 s. Extra time is found time outside the true
utterances. With a run, the share of the utterances' time with the right emotion is compared with that of the same
recordings predicted one by one. The run should not be trained on these actors.
"""

import argparse
import resource
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import soundfile
import torch

import cemobam
from utils.data.audio import Segment, load_segment, probe
from utils.errors import InputError, run_main
from utils.timeline.envelope import Envelope
from utils.timeline.segments import utterances

RATE, LONGEST = 16_000, 30.0
FRAME = RATE // 50
FLOOR = 25  # an utterance begins and ends at this many dB below its loudest frame
PAUSES = (0.6, 2.0)  # seconds
LEVEL = 0.03  # RMS of an utterance for the SNR of the noise; in RAVDESS, it is 0.002 to 0.2
NEAR = 0.25  # seconds
MARGIN = 0.1  # seconds kept around an utterance
MARGINS = (0.0, 0.25, 0.5, 1.0)  # seconds of the pauses that are encoded with an utterance


@dataclass(frozen=True)
class Spoken:
    """A true utterance of a joined recording. Times are in seconds."""

    start: float
    stop: float
    speaker: str
    text: str
    emotion: str
    source: Path


def join_utterances(
    corpus: Path, path: Path, count: int, snr: float, seed: int, actors: Sequence[str] = ()
) -> list[Spoken]:
    """Write a recording of ``count`` utterances to ``path``, and return the utterances.

    Args:
        actors: use the utterances of these actors; () for all.
        snr: level of :data:`LEVEL` above the noise, in dB.
    """
    rng = np.random.default_rng(seed)
    table = pd.read_csv(corpus / "metadata.csv", dtype=str)
    if actors:
        table = table[table["actor"].isin(actors)]
        if table.empty:
            raise InputError(f"{corpus / 'metadata.csv'}: no utterance of actor {', '.join(actors)}")
    order = np.concatenate([rng.permutation(len(table)) for _ in range(-(-count // len(table)))])[:count]
    spoken, at = [], 0
    with soundfile.SoundFile(path, "w", RATE, 1) as file:

        def write(samples: np.ndarray) -> None:
            nonlocal at
            file.write(samples + LEVEL * 10 ** (-snr / 20) * _pink(len(samples), rng))
            at += len(samples)

        for row in table.iloc[order].itertuples():
            recording = probe(corpus / row.path)
            samples = load_segment(Segment(recording, 0, recording.frames), RATE).numpy()
            start, stop = _spoken(samples)
            before = min(start, round(MARGIN * RATE))
            write(np.zeros(int(rng.uniform(*PAUSES) * RATE)))
            times = [(at + before) / RATE, (at + before + stop - start) / RATE]
            spoken.append(Spoken(*times, row.actor, row.text, row.emotion, recording.path))
            write(samples[start - before : stop + round(MARGIN * RATE)])
        write(np.zeros(int(PAUSES[1] * RATE)))
    return spoken


def _spoken(samples: np.ndarray) -> tuple[int, int]:
    """The first and last sample of a recording's speech, by its level."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    level = np.sqrt((frames**2).mean(1))
    loud = np.flatnonzero(level > level.max() * 10 ** (-FLOOR / 20))
    return int(loud[0]) * FRAME, int(loud[-1] + 1) * FRAME


def _pink(count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls by 3 dB per octave, of RMS 1."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), count)
    return noise / np.sqrt((noise**2).mean())


def scores(spoken: list[Spoken], found: np.ndarray) -> tuple[dict[str, float], Counter]:
    """Score the found times [N, 2]. Returns counts and shares, and the number of missed utterances of each emotion."""
    true = np.array([(each.start, each.stop) for each in spoken])
    near = np.stack([np.abs(true[:, side, None] - found[None, :, side]).min(1) <= NEAR for side in (0, 1)])
    overlap = np.minimum(true[:, None, 1], found[:, 1]) - np.maximum(true[:, None, 0], found[:, 0])
    shared = overlap.clip(0).sum(1)
    heard = shared >= 0.5 * (true[:, 1] - true[:, 0])
    missed = Counter(each.emotion for each, found_it in zip(spoken, heard, strict=True) if not found_it)
    extra = (found[:, 1] - found[:, 0]).sum() - shared.sum()
    values = {
        "utterances": len(spoken),
        "found": int(heard.sum()),
        "segments": len(found),
        "boundaries within 0.25 s (%)": 100 * near.mean(),
        "extra time (%)": 100 * extra / (true[:, 1] - true[:, 0]).sum(),
    }
    return values, missed


def emotion_scores(model: cemobam.Model, joined: Path, spoken: list[Spoken]) -> dict[str, float]:
    """The share of the utterances' time with the right emotion, in the joined recording and predicted one by one."""
    true = sum(each.stop - each.start for each in spoken)
    found = {}
    for margin in MARGINS:
        moments = list(model.timeline(joined, margin=margin))
        right = sum(
            max(0.0, min(each.stop, moment.stop) - max(each.start, moment.start))
            for each in spoken
            for moment in moments
            if moment.emotion == each.emotion
        )
        found[f"right time, margin {margin:g} s (%)"] = 100 * right / true
    alone = sum(each.stop - each.start for each in spoken if model.predict(each.source).emotion == each.emotion)
    return found | {"right time, one by one (%)": 100 * alone / true}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--count", type=int, default=240, help="utterances; 240 are about 14 minutes")
    parser.add_argument("--snr", type=float, nargs="+", default=[30.0, 15.0, 5.0], help="dB, one recording each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--actors", nargs="+", default=[], help="use only these actors")
    parser.add_argument("--checkpoint", help="a run that predicts emotions")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {args.count} utterances, seed {args.seed}")
    for snr in args.snr:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "joined.flac"
            spoken = join_utterances(args.corpus, path, args.count, snr, args.seed, args.actors)
            recording = probe(path)
            begin, processor, first = time.perf_counter(), time.process_time(), None
            found = []
            for each in utterances(recording, LONGEST, RATE, Envelope()):
                first = first or time.perf_counter() - begin
                found.append((each.start, each.stop))
            seconds, busy = time.perf_counter() - begin, time.process_time() - processor
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            emotions = emotion_scores(cemobam.load(args.checkpoint), path, spoken) if args.checkpoint else {}
        values, missed = scores(spoken, np.array(found))
        values |= {
            "first after (s)": first,
            "seconds per hour": 3600 * seconds / recording.seconds,
            "CPU seconds per hour": 3600 * busy / recording.seconds,
            "peak memory (MiB)": peak,
            **emotions,
        }
        print(f"SNR {snr:g} dB, {recording.seconds / 60:.1f} minutes")
        print("\n".join(f"  {name:29}{value:8.1f}" for name, value in values.items()))
        print("  missed:", ", ".join(f"{emotion} {count}" for emotion, count in missed.most_common()) or "none")


if __name__ == "__main__":
    run_main(main)
