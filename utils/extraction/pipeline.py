"""Feature extraction: converts prepared utterances to feature pickles."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from models.encoders import AudioEncoder, TextEncoder
from utils.config import SPLITS
from utils.data.audio import Recording
from utils.data.leakage import leakage_lines, leakage_report
from utils.data.provenance import check_untested
from utils.extraction.bad_recordings import BadRecordings
from utils.extraction.config import BATCH_SECONDS, BATCH_TOKENS
from utils.extraction.embedding import embed_recordings, embed_texts, probe_all
from utils.extraction.embedding_cache import open_cache
from utils.extraction.encoding import SEGMENT_SECONDS
from utils.extraction.feature_writer import check_target, write_features
from utils.extraction.hub import load_audio_encoder, load_text_encoder
from utils.io import check_writable


def usable_recordings(
    utterances: pd.DataFrame, class_names: list[str], split: str, bad: BadRecordings
) -> tuple[pd.DataFrame, dict[str, Recording]]:
    """Read the headers of all recordings. Print the split sizes and, if no transcript is missing, the leakage report.

    Returns:
        The utterances of the good recordings, and the recordings by path.

    Raises:
        InputError: A recording is bad and ``bad`` does not skip it, a split is empty, or train lacks a class.
    """
    bad.add_rows(utterances)
    good = utterances.loc[utterances["problem"] == "", "audio_file"]
    recordings = probe_all(list(good), bad.add)
    table = bad.usable(utterances, recordings, class_names, split)
    sizes = table["split"].value_counts()
    print(f"split {split}: {', '.join(f'{name} {sizes[name]}' for name in SPLITS)}")
    if table["raw_text"].all():
        print(leakage_lines(leakage_report(table)))
    return table, recordings


def load_encoders(
    text_model: str, text_pooling: str | None, audio_model: str, device: torch.device
) -> tuple[TextEncoder, AudioEncoder, dict[str, dict]]:
    """Load both encoders and print their descriptions, which are also returned by modality."""
    text, text_info = load_text_encoder(text_model, text_pooling, device)
    audio, audio_info = load_audio_encoder(audio_model, device)
    audio_info["segment_seconds"] = SEGMENT_SECONDS
    for name, each in (("text ", text_info), ("audio", audio_info)):
        print(f"{name}  {each['name']} ({each['type']}, pooling {each['pooling']}, {each['dim']} values)")
    return text, audio, {"text": text_info, "audio": audio_info}


@dataclass(frozen=True)
class Extraction:
    """Output and limits of an extraction. The fields are options of extract_features.py."""

    folder: Path
    dataset: str
    cache_dir: Path
    batch_seconds: float | None
    batch_tokens: int | None
    overwrite: bool

    def run(
        self,
        table: pd.DataFrame,
        recordings: dict[str, Recording],
        encoders: tuple[TextEncoder, AudioEncoder],
        info: dict,
        bad: BadRecordings,
    ) -> Iterator[str]:
        """Embed the utterances and write the features.

        Args:
            info: The part of the JSON that is already known: corpus, classes, split, encoders and, if some were
                recognised, transcripts.

        Yields:
            Notes, then the summary, one line each.

        Raises:
            InputError: The target contains other features, an encoder was fine-tuned on a test recording, or a
                recording is bad and ``bad`` does not skip it.
        """
        tested = table.loc[table["split"] == "test", "audio_file"].tolist()
        for modality, each in info["encoders"].items():
            check_untested(each["name"], f"--{modality}_model", tested)
        check_target(self.folder, self.dataset, info, len(table), self.overwrite)
        text_encoder, audio_encoder = encoders
        device = text_encoder.model.device.type
        text, audio = (open_cache(self.cache_dir, name, each, device) for name, each in info["encoders"].items())
        check_writable(self.folder)
        bad.write()

        tokens = self.batch_tokens or BATCH_TOKENS[device]
        truncated = embed_texts(text_encoder, list(table["raw_text"]), text, tokens)
        if truncated:
            yield f"note: {truncated} transcripts were truncated to {text_encoder.max_tokens} tokens"
        seconds = self.batch_seconds or BATCH_SECONDS[device]
        asked = {path: recordings[path] for path in table["audio_file"]}
        embeddings = embed_recordings(audio_encoder, asked, audio, seconds, bad.add)

        decoded = bad.usable(table, embeddings, info["class_names"], info["split"]["kind"])
        bad.write()
        report = leakage_report(decoded)
        if len(decoded) < len(table):
            yield f"without the recordings that cannot be decoded, {leakage_lines(report)}"
        elif info.get("transcripts", {}).get("recognized"):
            yield leakage_lines(report)
        info |= {"leakage": report, "device": device, "skipped": len(bad.found), "transcripts_truncated": truncated}
        path = write_features(self.folder, self.dataset, decoded, text, embeddings, info)
        if bad.found:
            yield f"{len(bad.found)} recordings were skipped; {bad.report} lists them with the reasons"
        for split in SPLITS:
            counts = Counter(decoded.loc[decoded["split"] == split, "label"])
            per_class = ", ".join(f"{counts[i]} {name}" for i, name in enumerate(info["class_names"]))
            yield f"{self.dataset}_BERT_WAV2VEC_{split}.pkl: {sum(counts.values())} utterances ({per_class})"
        yield f"saved in {self.folder}, described in {path}"
