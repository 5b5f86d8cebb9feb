"""DEMO: a synthetic bimodal dataset with a known Bayes-optimal WA.

The emotion consists of two bits, valence and arousal. Text carries only the first bit and audio only the second, so one
modality alone cannot separate all classes. Utterances form scenes of :data:`SCENE_SIZE` members. The members of a scene
share a signature in both embeddings, which makes them nearest neighbours. Each member has the emotion of the scene with
probability ``agreement``, otherwise a random one. Every scene belongs to one split, so signatures do not generalise. A
Top-K graph helps because it pools the evidence of utterances that mostly agree.

    valence, arousal = +1 or -1 each;   z = [MARGIN * bit + N(0, 1), SIGNATURE * scene + JITTER * N(0, I)]
    embedding = z Q + AMBIENT N(0, I),    Q a fixed orthonormal [1 + 12, 768] per modality
"""

import os
import pickle
from math import erf, sqrt
from pathlib import Path

import numpy as np

from utils.config import SPLITS, feature_path
from utils.data.features import load_features
from utils.data.identity import write_csv
from utils.errors import InputError
from utils.io import atomic_write, read_file

DIM = 768
SCENE_SIZE = 9
SCENES = {"train": 60, "val": 20, "test": 40}  # 540, 180 and 360 utterances
MARGIN = {"text": 1.4, "audio": 1.3}  # of a bit, in standard deviations of the noise
SIGNATURE = 0.4  # weaker than the bit, so memorising the training scenes does not help
JITTER = 0.08  # standard deviation of a signature within its scene
SIGNATURE_DIM = 12
AMBIENT = 0.005  # noise in each of the 768 dimensions; stronger noise alone would separate 540 utterances
AGREEMENT = 0.9
SEED = 2025
# MARGIN in standard deviations of the total noise along the axis of the bit
_TOTAL_MARGIN = {name: margin / np.hypot(1, AMBIENT) for name, margin in MARGIN.items()}
# (valence, arousal) of anger, happiness, neutral, sadness
BITS = np.array([[-1, 1], [1, 1], [1, -1], [-1, -1]])


def write_demo(folder: Path, agreement: float = AGREEMENT) -> None:
    """Write ``DEMO_BERT_WAV2VEC_{train,val,test}.pkl`` to ``folder``, each with its CSV, unless they exist.

    The result is deterministic on one machine.

    Raises:
        InputError: a file of this name has other contents. Nothing is written, and the file is kept.
    """
    missing = {}
    for split, rows in _draw(agreement).items():
        path = feature_path(folder, "DEMO", split)
        # the CSV first, since it is read along with the pickle
        for file, data in ((path.with_suffix(".csv"), _identity(split, rows)), (path, pickle.dumps(rows, protocol=4))):
            if not os.path.lexists(file):
                missing[file] = data
            elif not ((file.is_file() and read_file(file) == data) or (file == path and _holds(path, rows))):
                raise InputError(
                    f"{file}: not the DEMO data of this version; move it elsewhere, or delete it to generate DEMO again"
                )
    for path, data in missing.items():
        atomic_write(path, data)


def _identity(split: str, rows: list[dict]) -> bytes:
    """The CSV of a pickle. The scene of an utterance is its dialogue."""
    names = [f"{split}/scene{i // SCENE_SIZE:03d}" for i in range(len(rows))]
    table = [
        (f"{scene}/{i % SCENE_SIZE}", "", row["label"], "", "", scene)
        for i, (scene, row) in enumerate(zip(names, rows, strict=True))
    ]
    return write_csv([("audio_file", "raw_text", "label", "speaker", "session", "dialogue"), *table])


def _holds(path: Path, rows: list[dict]) -> bool:
    """Whether a pickle contains these rows, up to rounding differences between LAPACK versions."""
    try:
        found = load_features(path)
    except InputError:
        return False
    text, audio, label = (np.array([row[key] for row in rows]) for key in rows[0])
    same = found.dims == (DIM, DIM) and np.array_equal(found.label, label)
    return same and np.allclose(found.text, text, 0, 1e-5) and np.allclose(found.audio, audio, 0, 1e-5)


def _draw(agreement: float) -> dict[str, list[dict]]:
    """The rows of each split's pickle."""
    rng = np.random.default_rng(SEED)
    bases = _bases(rng)
    rows = {}
    for split in SPLITS:
        label = _draw_labels(rng, SCENES[split], agreement).ravel()
        embeddings = []
        for bit, (margin, basis) in enumerate(zip(MARGIN.values(), bases, strict=True)):
            scene = np.repeat(rng.standard_normal((SCENES[split], SIGNATURE_DIM)), SCENE_SIZE, axis=0)
            z = np.column_stack([margin * BITS[label, bit], SIGNATURE * scene])
            z += rng.standard_normal(z.shape) * ([1] + [JITTER] * SIGNATURE_DIM)
            embeddings.append((z @ basis + AMBIENT * rng.standard_normal((len(z), DIM))).astype(np.float32))
        rows[split] = [
            {"text_embed": text, "audio_embed": audio, "label": int(y)}
            for text, audio, y in zip(*embeddings, label, strict=True)
        ]
    return rows


def _bases(rng: np.random.Generator) -> list[np.ndarray]:
    """The orthonormal rows [1 + SIGNATURE_DIM, DIM] of each modality. The first row is the axis of the bit."""
    return [np.linalg.qr(rng.standard_normal((DIM, 1 + SIGNATURE_DIM)))[0].T for _ in MARGIN]


def _draw_labels(rng: np.random.Generator, scenes: int, agreement: float) -> np.ndarray:
    """Labels [scenes, SCENE_SIZE]: that of the scene with probability ``agreement``, otherwise a random one."""
    scene = rng.permutation(np.arange(scenes) % 4)[:, None]
    fresh = rng.integers(4, size=(scenes, SCENE_SIZE))
    return np.where(rng.random(fresh.shape) < agreement, scene, fresh)


def bayes_optimal_wa(agreement: float = AGREEMENT, scenes: int = 100_000) -> dict[str, float]:
    """Compute the best WA that any classifier can reach, as a fraction.

    Returns:
        - ``text`` and ``audio``: WA given one embedding, Phi(margin) / 2.
        - ``utterance``: WA given both embeddings, Phi(margin_text) * Phi(margin_audio).
        - ``scene``: WA given the embeddings of the whole scene. This is the bound for a graph model. It is estimated
          from the exact posterior on ``scenes`` simulated scenes (standard error 0.0004).
    """
    phi = {name: (1 + erf(margin / sqrt(2))) / 2 for name, margin in _TOTAL_MARGIN.items()}
    rng = np.random.default_rng(SEED)
    label = _draw_labels(rng, scenes, agreement)
    seen = [
        margin * BITS[label, bit] + rng.standard_normal(label.shape)
        for bit, margin in enumerate(_TOTAL_MARGIN.values())
    ]
    posterior = scene_posterior(_likelihood(seen), agreement)
    return {
        "text": phi["text"] / 2,
        "audio": phi["audio"] / 2,
        "utterance": phi["text"] * phi["audio"],
        "scene": float((posterior.argmax(-1) == label).mean()),
    }


def demo_posterior(text: np.ndarray, audio: np.ndarray, agreement: float = AGREEMENT) -> np.ndarray:
    """The exact class probabilities [N, 4] of DEMO utterances, given the embeddings of their whole scenes.

    Only one axis of an embedding, that of the bit, depends on the class. Scenes are treated as independent, although a
    split has equally many scenes of each emotion.

    Args:
        text, audio: embeddings [N, DIM] of whole scenes, in the order of the pickle.
    """
    seen = [
        (embeddings @ basis[0] / np.hypot(1, AMBIENT)).reshape(-1, SCENE_SIZE)
        for embeddings, basis in zip((text, audio), _bases(np.random.default_rng(SEED)), strict=True)
    ]
    posterior = scene_posterior(_likelihood(seen), agreement).reshape(-1, 4)
    return posterior / posterior.sum(1, keepdims=True)


def _likelihood(seen: list[np.ndarray]) -> np.ndarray:
    """p(utterance | class), up to one factor per utterance, [scenes, members, 4].

    Args:
        seen: by modality, the values on the axis of the bit, in standard deviations of their noise, [scenes, members].
    """
    margins = _TOTAL_MARGIN.values()
    evidence = [m * x[..., None] * BITS[:, bit] for bit, (m, x) in enumerate(zip(margins, seen, strict=True))]
    return np.exp(sum(evidence))


def scene_posterior(likelihood: np.ndarray, agreement: float) -> np.ndarray:
    """Compute the class posterior of each member given its whole scene, up to one factor per member.

    The emotion s of the scene is marginalised:
    p(y_i | x) ~ p(x_i | y_i) sum_s p(y_i | s) prod_{j != i} sum_y p(y | s) p(x_j | y).

    Shapes: likelihood p(x | y) and result [scenes, members, 4].
    """
    given_scene = agreement * np.eye(4) + (1 - agreement) / 4  # p(y | s), symmetric
    by_scene = np.log(likelihood @ given_scene)
    others = by_scene.sum(1, keepdims=True) - by_scene
    others = np.exp(others - others.max(-1, keepdims=True))
    return likelihood * (others @ given_scene)


def demo_note() -> str:
    """The note that is printed below results on DEMO."""
    bound = {name: f"{100 * wa:.1f}" for name, wa in bayes_optimal_wa().items()}
    return (
        "DEMO is synthetic: these results show that the code works, but say nothing about speech.\n"
        f"Bayes-optimal WA: {bound['scene']} with the utterance's whole scene, {bound['utterance']} from the utterance "
        f"alone,\n{bound['text']} from its text alone, {bound['audio']} from its audio alone."
    )
