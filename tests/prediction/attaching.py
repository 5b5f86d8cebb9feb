"""Runs with random weights on a few training utterances, and the whole graph that attachment must reproduce."""

import torch

from models.cemobam import CemoBAM
from models.ops import NeighborGraph
from utils.prediction.inductive import TrainingGraph
from utils.training.graph import neighbor_lists, prepare, top_k_neighbors
from utils.training.trained import Trained

CPU = torch.device("cpu")


def lists_of(features, config):
    return neighbor_lists(features.text, features.audio, config.k_text, config.k_audio, config.topk_self)


def graph_of(train, config):
    return TrainingGraph(train.text, train.audio, lists_of(train, config), {}, train.sha256)


def trained_model(train, config, tmp_path, seed=0):
    """A model whose running statistics differ from their initial values."""
    torch.manual_seed(seed)
    model = CemoBAM(config.model, *train.dims, 4)
    graph = prepare(train, config, CPU).graph
    for _ in range(3):
        model(train.text, train.audio, graph)
    path = tmp_path / "run" / f"seed{seed}" / "best.pt"
    return Trained(path, model.eval(), config, tuple("abcd"), train.dims, seed, {"train": {"sha256": train.sha256}})


def whole_graph(train, new, config):
    """The unchanged graph of train, and each new node with its edges, built edge by edge."""
    graph = prepare(train, config, CPU).graph
    n = len(train)
    edges = list(zip(graph.target.tolist(), graph.source.tolist(), strict=True))
    for i in range(len(new)):
        edges.append((n + i, n + i))
        sources = set()
        for of_train, of_new, k in ((train.text, new.text, config.k_text), (train.audio, new.audio, config.k_audio)):
            together = torch.cat([of_train, of_new[i : i + 1]])
            lists = top_k_neighbors(together, k, config.topk_self)
            if config.message_flow == "neighbors_to_node":
                sources |= set(lists[n].tolist())
            else:
                sources |= {j for j in range(n) if n in lists[j].tolist()}
        edges += [(n + i, j) for j in sources]
    target, source = torch.tensor(sorted(edges)).T
    counts = torch.bincount(target, minlength=n + len(new))
    return NeighborGraph(source, target, torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)]))
