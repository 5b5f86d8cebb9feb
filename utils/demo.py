"""DEMO: a synthetic two-modality set whose Bayes-optimal WA is known.

Two bits make the emotion, as valence and arousal do: text carries only the first, audio only the second, so either
alone leaves two classes apart by chance. Utterances come in scenes of :data:`SCENE_SIZE`; a scene has a signature in
both embeddings, which makes its members each other's nearest neighbours, and an emotion that each member shares with
probability ``agreement`` (else it is drawn anew). A scene lies in one split, so its signature teaches nothing that
carries over; what a Top-K graph can do with it is to pool the evidence of utterances that mostly agree.

    valence, arousal = +1 or -1 each;   z = [MARGIN * bit + N(0, 1), SIGNATURE * scene + JITTER * N(0, I)]
    embedding = z Q + AMBIENT N(0, I),    Q a fixed orthonormal [1 + 12, 768], one for each modality
"""

import pickle
from math import erf, sqrt
from pathlib import Path

import numpy as np

from utils.features import SPLITS
from utils.files import atomic_write

DIM = 768
SCENE_SIZE = 9
SCENES = {"train": 60, "val": 20, "test": 40}  # 540, 180 and 360 utterances
MARGIN = {"text": 1.4, "audio": 1.3}  # of a bit, in standard deviations of the noise
SIGNATURE = 0.4  # weaker than the bit, so that learning the training scenes by heart does not pay
JITTER = 0.08  # of a signature inside its scene
SIGNATURE_DIM = 12
AMBIENT = 0.005  # of every one of the 768 dimensions: more, and 540 utterances are told apart by it
AGREEMENT = 0.9
SEED = 2025
# (valence, arousal) of anger, happiness, neutral, sadness
BITS = np.array([[-1, 1], [1, 1], [1, -1], [-1, -1]])


def write_demo(folder: Path, agreement: float = AGREEMENT) -> None:
    """Write the pickles ``DEMO_BERT_WAV2VEC_{train,val,test}.pkl``, the same bits at every call on one machine."""
    rng = np.random.default_rng(SEED)
    bases = [np.linalg.qr(rng.standard_normal((DIM, 1 + SIGNATURE_DIM)))[0].T for _ in MARGIN]
    for split in SPLITS:
        label = _draw_labels(rng, SCENES[split], agreement).ravel()
        embeddings = []
        for bit, (margin, basis) in enumerate(zip(MARGIN.values(), bases, strict=True)):
            scene = np.repeat(rng.standard_normal((SCENES[split], SIGNATURE_DIM)), SCENE_SIZE, axis=0)
            z = np.column_stack([margin * BITS[label, bit], SIGNATURE * scene])
            z += rng.standard_normal(z.shape) * ([1] + [JITTER] * SIGNATURE_DIM)
            embeddings.append((z @ basis + AMBIENT * rng.standard_normal((len(z), DIM))).astype(np.float32))
        rows = [
            {"text_embed": text, "audio_embed": audio, "label": int(y)}
            for text, audio, y in zip(*embeddings, label, strict=True)
        ]
        atomic_write(folder / f"DEMO_BERT_WAV2VEC_{split}.pkl", pickle.dumps(rows, protocol=4))


def _draw_labels(rng: np.random.Generator, scenes: int, agreement: float) -> np.ndarray:
    """Labels [scenes, SCENE_SIZE]: the scene's own, or one drawn anew with probability 1 - agreement."""
    scene = rng.permutation(np.arange(scenes) % 4)[:, None]
    fresh = rng.integers(4, size=(scenes, SCENE_SIZE))
    return np.where(rng.random(fresh.shape) < agreement, scene, fresh)


def bayes_optimal_wa(agreement: float = AGREEMENT, scenes: int = 100_000) -> dict[str, float]:
    """The best WA that any classifier can reach, as a fraction.

    ``utterance``: from the two embeddings of one utterance, in closed form: Phi(margin_text) * Phi(margin_audio).
    ``text`` and ``audio``: from one of them, half of Phi(margin). ``scene``: from the embeddings of its whole scene,
    the bound for a graph model, by simulation of the exact posterior over ``scenes`` scenes (standard error 0.0004).
    """
    phi = {name: (1 + erf(_total_margin(name) / sqrt(2))) / 2 for name in MARGIN}
    rng = np.random.default_rng(SEED)
    label = _draw_labels(rng, scenes, agreement)
    evidence = np.zeros((scenes, SCENE_SIZE, 4))  # log p(utterance | class), up to a constant
    for bit, name in enumerate(MARGIN):
        margin = _total_margin(name)
        seen = margin * BITS[label, bit] + rng.standard_normal(label.shape)
        evidence += margin * seen[..., None] * BITS[:, bit]
    posterior = scene_posterior(np.exp(evidence), agreement)
    return {
        "text": phi["text"] / 2,
        "audio": phi["audio"] / 2,
        "utterance": phi["text"] * phi["audio"],
        "scene": float((posterior.argmax(-1) == label).mean()),
    }


def scene_posterior(likelihood: np.ndarray, agreement: float) -> np.ndarray:
    """p(class of each member | its whole scene), up to a factor a member, from p(member | class).

    The scene's emotion s is summed out:
    p(y_i | all) ~ p(x_i | y_i) sum_s p(y_i | s) prod_{j != i} sum_y p(y | s) p(x_j | y).
    Shapes: likelihood and result [scenes, members, 4].
    """
    given_scene = agreement * np.eye(4) + (1 - agreement) / 4  # p(class | scene's emotion), symmetric
    by_scene = np.log(likelihood @ given_scene)
    others = by_scene.sum(1, keepdims=True) - by_scene
    others = np.exp(others - others.max(-1, keepdims=True))
    return likelihood * (others @ given_scene)


def _total_margin(name: str) -> float:
    """Margin in standard deviations of all the noise along the bit's axis."""
    return MARGIN[name] / np.hypot(1, AMBIENT)
