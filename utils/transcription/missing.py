"""Fills in the missing transcripts of an extraction."""

import numpy as np
import pandas as pd

from utils.data.audio import Recording
from utils.errors import InputError
from utils.extraction.bad_recordings import BadRecordings
from utils.extraction.embedding_cache import EmbeddingCache
from utils.transcription.recognizer import COMPARED, Recognizer, transcribe, word_error_rate


def fill_missing(
    table: pd.DataFrame,
    recordings: dict[str, Recording],
    recognizer: Recognizer,
    batch_seconds: float,
    bad: BadRecordings,
    cache: EmbeddingCache | None,
) -> tuple[pd.DataFrame, dict]:
    """Recognise the missing transcripts. Print their number, and the word error rate on given transcripts.

    Args:
        table: Has the columns ``audio_file`` and ``raw_text``, which is "" where it is missing.
        cache: As in :func:`~utils.transcription.recognizer.transcribe`.

    Returns:
        The table with a column ``recognizer`` (the name of the recogniser, or "" for given transcripts), and an entry
        for the JSON of the features. A bad recording stays without a transcript.

    Raises:
        InputError: A recording is bad and ``bad`` does not skip it.
    """
    missing = table.loc[table["raw_text"] == "", "audio_file"]
    given = table.loc[table["raw_text"] != ""].set_index("audio_file")["raw_text"]
    compared = given.iloc[np.linspace(0, len(given) - 1, min(COMPARED, len(given))).round().astype(int)]
    asked = {path: recordings[path] for path in (*missing, *compared.index)}
    texts = transcribe(recognizer, asked, batch_seconds, bad.add, cache)
    for path in missing:
        if texts.get(path) == "":
            bad.add(path, InputError(f"{path}: no words were recognised"))
    found = {path: texts[path] for path in missing if texts.get(path)}
    table = table.assign(
        raw_text=table["audio_file"].map(found).fillna(table["raw_text"]),
        recognizer=[recognizer.name if path in found else "" for path in table["audio_file"]],
    )
    described = {"recognizer": recognizer.name, "recognized": len(found)}
    print(f"{len(found)} of {len(table)} transcripts were recognised by {recognizer.name}")
    print(f"they are stored in {recognizer.transcripts.path}; if you edit a raw_text there, the edited text is used")
    pairs = [(text, texts[path]) for path, text in compared.items() if path in texts]
    if (rate := word_error_rate(pairs)) is not None:
        described["word_error_rate"] = rate
        print(f"word error rate {100 * rate:.1f} % on {len(pairs)} given transcripts")
    return table, described
