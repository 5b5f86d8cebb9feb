"""Time training steps of one variant in this process: the worker of ``benchmarks.speed``.

python -m benchmarks.steps ours refined 4407 3 cpu   # variant (ours, pyg, products), profile, utterances, steps, device
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import nn

from benchmarks.pyg_reference import reference_step, with_reference_parts
from models.cemobam import CemoBAM
from utils.config import make_config
from utils.device import set_matmul_precision
from utils.training.graph import GraphData, NeighborLists, build_graph
from utils.training.loop import start_training, train_step

DIM, CLASSES = 768, 4


def timed(work: Callable[[], object], device: torch.device | None = None) -> float:
    begin = time.perf_counter()
    work()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def random_data(nodes: int, device: torch.device) -> GraphData:
    """Random features and neighbours. The time of a step does not depend on them."""
    config = make_config({"dataset": "IEMOCAP"})
    lists = NeighborLists(*(torch.randint(0, nodes, (nodes, k)) for k in (config.k_text, config.k_audio)))
    graph = build_graph(lists, config.k_text, config.k_audio)
    text, audio = torch.randn(nodes, DIM), torch.randn(nodes, DIM)
    label = torch.randint(0, CLASSES, (nodes,))
    return GraphData(text.to(device), audio.to(device), label.to(device), graph.to(device))


def prepare_steps(variant: str, profile: str, nodes: int, device: torch.device) -> tuple[CemoBAM, Callable]:
    """A model and its training step on random data."""
    torch.manual_seed(0)
    config = make_config({"dataset": "IEMOCAP", "profile": profile})
    set_matmul_precision(config.matmul_precision, device)
    model = CemoBAM(config.model, DIM, DIM, CLASSES)
    data = random_data(nodes, device)
    if variant == "pyg":
        model = with_reference_parts(model).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        return model, partial(reference_step, model, optimizer, data, config)
    return model, partial(train_step, start_training(model.to(device), config), data, config)


def measure_steps(variant: str, profile: str, nodes: int, steps: int, device: torch.device) -> dict:
    """Median seconds of a step after a warm-up step, and the peak memory."""
    _, step = prepare_steps(variant, profile, nodes, device)
    seconds = [timed(step, device) for _ in range(steps + 1)][1:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {"seconds": median(seconds), "peak": peak}


def profile_step(variant: str, nodes: int = 4407, steps: int = 3) -> str:
    """Share of each operation in the time of a step, after a warm-up step."""
    _, step = prepare_steps(variant, "refined", nodes, torch.device("cpu"))
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            step()
    operations = sorted(profiler.key_averages(), key=lambda op: -op.self_cpu_time_total)
    whole = sum(op.self_cpu_time_total for op in operations)
    return "\n".join(f"  {100 * op.self_cpu_time_total / whole:5.1f} %  {op.key}" for op in operations[:12])


def product_shapes(model: nn.Module, nodes: int) -> list[tuple[int, int, int]]:
    """(rows, inner, columns) of each dense product of a step: forward, weight gradient, input gradient."""
    shapes = []
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is not None and weight.dim() == 2:  # nn.Linear, and the Linear of PyG
            outs, ins = weight.shape
            shapes += [(nodes, ins, outs), (outs, nodes, ins)]
            if name not in ("text_projection.0", "audio_projection.0"):  # features need no gradient
                shapes.append((nodes, outs, ins))
    return shapes


def measure_products(profile: str, nodes: int, steps: int, device: torch.device) -> dict:
    """GEMM lower bound: seconds of all products alone, into preallocated memory, and their rate in GFLOP/s."""
    model, _ = prepare_steps("ours", profile, nodes, device)
    shapes = product_shapes(model, nodes)
    operands = {
        (rows, inner, columns): (
            torch.randn(rows, inner, device=device),
            torch.randn(inner, columns, device=device),
            torch.empty(rows, columns, device=device),
        )
        for rows, inner, columns in set(shapes)
    }

    def multiply() -> None:
        for shape in shapes:
            a, b, out = operands[shape]
            torch.mm(a, b, out=out)

    seconds = median([timed(multiply, device) for _ in range(steps + 1)][1:])
    return {
        "seconds": seconds,
        "gflops": sum(2 * rows * inner * columns for rows, inner, columns in shapes) / seconds / 1e9,
    }


def main() -> None:
    variant, profile, *numbers, device = sys.argv[1:]
    nodes, steps = map(int, numbers)
    if variant == "products":
        result = measure_products(profile, nodes, steps, torch.device(device))
    else:
        result = measure_steps(variant, profile, nodes, steps, torch.device(device))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
