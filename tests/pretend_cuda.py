"""Pretended CUDA devices: tensors report that they are on a GPU, and are computed on the CPU.

All values are computed, so that whole trainings run, including backward and the optimizer. Errors of a GPU are raised
here, too: two devices in one operation, ``numpy()`` of a device tensor, a random state of the wrong size. Waits for the
GPU and its operations are counted. Kernels, their numerics, autocast and streams are not covered, and gradients do not
pass from one device to another.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

CPU = torch.device("cpu")
NAME = "Pretended GPU"
# Operations that read a value or the size of their result from the GPU, and how often
_WAITS = {"_local_scalar_dense": 1, "nonzero": 1, "masked_select": 1, "equal": 1, "_unique2": 1, "unique_dim": 1}
_WAITS |= {"bincount": 2}  # the minimum and the maximum
_INDEXED = ("index", "index_put_", "_unsafe_index", "_index_put_impl_")  # indices may be on the CPU
_STATE_BYTES = 16  # of a CUDA generator: seed and offset


def _tensors(*values: object) -> list[Tensor]:
    """The tensors in arguments or results, in order."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(*value)
        elif isinstance(value, dict):
            found += _tensors(*value.values())
    return found


def _device(given: object) -> torch.device:
    """A device with its index; ``cuda`` is the first one."""
    device = torch.device(given)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


@contextmanager
def kept_switches() -> Iterator[None]:
    """Restore what code for a GPU sets for the whole process: precision, determinism, attention, the environment."""
    backends, deterministic = torch.backends, torch.utils.deterministic
    precision = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
    cudnn_attention, fill = backends.cuda.cudnn_sdp_enabled(), deterministic.fill_uninitialized_memory
    mode = torch.get_deterministic_debug_mode()
    try:
        with mock.patch.dict(os.environ):
            yield
    finally:
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = precision
        backends.cuda.enable_cudnn_sdp(cudnn_attention)
        deterministic.fill_uninitialized_memory = fill
        torch.set_deterministic_debug_mode(mode)


class PretendCuda:
    """A context with ``count`` pretended devices.

    Attributes:
        waits: what made the CPU wait for a GPU, and how often: ``item``, ``to the CPU``, names of operations.
        kernels: operations on a GPU by name, without views and copies from or to the CPU. On a real GPU, an operation
            may run several kernels.
    """

    def __init__(self, count: int = 1):
        self.waits: Counter[str] = Counter()
        self.kernels: Counter[str] = Counter()
        self.generators = {torch.device("cuda", i): [0, 0] for i in range(count)}  # seed and offset
        self.created_on = CPU  # where an operation without tensors creates its result
        self._storages: dict[int, tuple[torch.device, StorageWeakRef]] = {}

    def __enter__(self) -> "PretendCuda":
        first = next(iter(self.generators))
        fakes = {
            "is_available": lambda: True,
            "device_count": lambda: len(self.generators),
            "current_device": lambda: 0,
            "get_device_name": lambda device=None: NAME,
            "is_bf16_supported": lambda including_emulation=True: True,
            "is_current_stream_capturing": lambda: False,
            "synchronize": lambda device=None: self.waits.update(["synchronize"]),
            "get_rng_state": self._get_rng_state,
            "set_rng_state": self._set_rng_state,
            "manual_seed": lambda seed: self._seed([first], seed),
            "manual_seed_all": lambda seed: self._seed(self.generators, seed),
        }
        with ExitStack() as stack:
            stack.enter_context(kept_switches())
            stack.enter_context(mock.patch.multiple(torch.cuda, **fakes))
            # called by Optimizer.step, which would then request the stream
            stack.enter_context(mock.patch.object(torch.accelerator, "current_accelerator", lambda **options: None))
            grouped = torch.optim.Optimizer._group_tensors_by_device_and_dtype
            groups = staticmethod(lambda *args: self._where_they_are(grouped(*args)))
            stack.enter_context(mock.patch.object(torch.optim.Optimizer, grouped.__name__, groups))
            stack.enter_context(_Operations(self))
            stack.enter_context(_Calls(self))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def where(self, tensor: Tensor) -> torch.device:
        """The device that a tensor reports. A view is on the device of its base."""
        if tensor.is_meta:
            return torch.device("meta")
        known = self._storages.get(tensor.untyped_storage()._cdata)
        return known[0] if known else CPU

    def place(self, tensor: Tensor, device: torch.device) -> None:
        """Make a tensor report that it is on a device."""
        storage = tensor.untyped_storage()
        if device.type == "cuda":  # the weak reference prevents reuse of the address
            self._storages[storage._cdata] = device, StorageWeakRef(storage)
        else:
            self._storages.pop(storage._cdata, None)
        if len(self._storages) > 20_000:
            self._storages = {key: value for key, value in self._storages.items() if not value[1].expired()}

    def wait(self, source: torch.device, target: torch.device, non_blocking: bool) -> None:
        """Count a copy from or to the CPU as a wait. A non-blocking copy to a GPU is not a wait."""
        if source.type == "cuda" and target.type == "cpu":
            self.waits["to the CPU"] += 1
        elif source.type == "cpu" and target.type == "cuda" and not non_blocking:
            self.waits["to the GPU"] += 1

    def _where_they_are(self, groups: dict) -> dict:
        """Correct the devices of an optimiser's parameter groups, which torch determines in C++."""
        return {(self.where(lists[0][0]), dtype): (lists, indices) for (_, dtype), (lists, indices) in groups.items()}

    def _get_rng_state(self, device: object = "cuda") -> Tensor:
        state = np.array(self.generators[_device(device)], dtype=np.uint64)
        return torch.from_numpy(state.view(np.uint8))

    def _set_rng_state(self, state: Tensor, device: object = "cuda") -> None:
        if state.device.type != "cpu" or state.dtype != torch.uint8:
            raise TypeError("RNG state must be a torch.ByteTensor")
        if state.numel() != _STATE_BYTES:
            raise RuntimeError("RNG state is wrong size")
        self.generators[_device(device)] = state.numpy().view(np.uint64).tolist()

    def _seed(self, devices: object, seed: int) -> None:
        for device in list(devices):
            self.generators[device] = [seed, 0]


class _Operations(TorchDispatchMode):
    """Every operation, including those of backward: the result is on the device of the inputs."""

    def __init__(self, cuda: PretendCuda):
        super().__init__()
        self.cuda = cuda

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        cuda, kwargs = self.cuda, dict(kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        inputs = _tensors(args, kwargs)
        devices = [cuda.where(tensor) for tensor in inputs]
        device = devices[0] if devices else cuda.created_on
        if len(set(devices)) > 1:
            if name == "copy_":
                cuda.wait(devices[1], devices[0], bool(kwargs.get("non_blocking", args[2:] and args[2])))
            elif name != "_has_compatible_shallow_copy_type":  # called by Module.to
                device = self._common(name, inputs, devices)
        draw = self._draw if torch.Tag.nondeterministic_seeded in func.tags and device.type == "cuda" else None
        out = draw(func, device, args, kwargs) if draw else func(*args, **kwargs)
        before = {tensor.untyped_storage()._cdata for tensor in inputs if not tensor.is_meta}
        fresh = [t for t in _tensors(out) if not t.is_meta and t.untyped_storage()._cdata not in before]
        for tensor in fresh:
            cuda.place(tensor, device)
        if device.type == "cuda":
            runs = func._schema.is_mutable or (fresh and not name.startswith(("empty", "new_empty")))
            if runs and not (name == "copy_" and CPU in devices):
                cuda.kernels[name] += 1
            self._count_waits(name, args)
        return out

    def _common(self, name: str, inputs: list[Tensor], devices: list[torch.device]) -> torch.device:
        """The device of an operation on tensors of several devices, which a GPU permits for single numbers and indices.

        Raises:
            RuntimeError: for all other tensors.
        """
        large = {device for tensor, device in zip(inputs, devices, strict=True) if tensor.dim()}
        if name in _INDEXED and devices[0].type == "cuda" and large <= {devices[0], CPU}:
            self.cuda.waits["to the GPU"] += CPU in large
            return devices[0]
        numbers = {device for tensor, device in zip(inputs, devices, strict=True) if not tensor.dim()}
        if len(large) > 1 or "cuda" in {each.type for each in numbers - large} or "fused" in name:
            found = ", ".join(sorted(map(str, set(devices))))
            raise RuntimeError(f"{name}: Expected all tensors to be on the same device, but found {found}")
        return next(iter(large))

    def _draw(self, func, device: torch.device, args: tuple, kwargs: dict) -> object:
        """Run an operation with the random numbers of the device's generator."""
        if kwargs.get("generator") is not None:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(hash(tuple(self.cuda.generators[device])) % 2**63)
        try:
            return func(*args, **kwargs)
        finally:
            torch.default_generator.set_state(before)
            self.cuda.generators[device][1] += 4

    def _count_waits(self, name: str, args: tuple) -> None:
        if name in _WAITS:
            self.cuda.waits["item" if name == "_local_scalar_dense" else name] += _WAITS[name]
        masked = name in _INDEXED and any(tensor.dtype == torch.bool for tensor in _tensors(args[1]))
        if masked and ("put" not in name or args[2].numel() > 1):  # with a single number, it is a masked_fill
            self.cuda.waits["mask"] += 1


class _Calls(TorchFunctionMode):
    """Calls from Python: ``device=``, ``.device``, ``.to``, ``.cpu``, ``.numpy``."""

    def __init__(self, cuda: PretendCuda):
        super().__init__()
        self.cuda = cuda

    def __torch_function__(self, func, types, args=(), kwargs=None):
        cuda, kwargs = self.cuda, dict(kwargs or {})
        name = getattr(func, "__name__", "")
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None:
            of = getattr(func, "__self__", None)  # the property whose getter this is
            if of is Tensor.device:
                return cuda.where(first)
            if of is Tensor.is_cuda:
                return cuda.where(first).type == "cuda"
            if name in ("numpy", "__array__", "tolist") and cuda.where(first).type == "cuda":
                if name != "tolist":
                    raise TypeError(f"can't convert {cuda.where(first)} device type tensor to numpy. Use Tensor.cpu()")
                cuda.waits["to the CPU"] += 1
            if name == "to":
                return self._to(first, args[1:], kwargs)
            if name in ("cpu", "cuda"):
                return self._move(first, _device(kwargs.get("device", name)), kwargs.get("non_blocking", False))
            if name == "new_tensor":
                kwargs.setdefault("device", cuda.where(first))
            if name == "as_tensor" and kwargs.get("device") is not None:
                return self._to(first, (), kwargs)
        device = kwargs.get("device")
        if device is not None and _device(device).type not in ("cpu", "cuda"):
            return func(*args, **kwargs)
        if device is not None:
            cuda.created_on = _device(device)
        elif tensors := [first] if first is not None else _tensors(args[:1]):
            cuda.created_on = cuda.where(tensors[0])  # an operation creates tensors on the device of its input
        try:
            out = func(*args, **kwargs if device is None else kwargs | {"device": CPU})
            for tensor in _tensors(out) if device is not None else ():
                cuda.place(tensor, cuda.created_on)
        finally:
            cuda.created_on = CPU
        return out

    def _to(self, tensor: Tensor, args: tuple, kwargs: dict) -> Tensor:
        like = next((each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)), None)
        if like is not None:
            args, kwargs = (self.cuda.where(like), like.dtype), {}
        copy = kwargs.pop("copy", False)
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        if copy or dtype not in (None, tensor.dtype):
            tensor = tensor.to(dtype or tensor.dtype, copy=True)
        return tensor if device is None else self._move(tensor, _device(device), non_blocking)

    def _move(self, tensor: Tensor, device: torch.device, non_blocking: bool) -> Tensor:
        source = self.cuda.where(tensor)
        if source == device or "meta" in (source.type, device.type):
            return tensor.to(device) if device.type == "meta" else tensor
        self.cuda.wait(source, device, non_blocking)
        with _disable_current_modes():
            copy = tensor.clone()
        self.cuda.place(copy, device)
        return copy
