"""The arithmetic of a network's passes: 32 bits, or 16 (bfloat16), whichever this machine does faster.

The images, their canvas, the optimizer, the priors and the objective have 32 bits throughout; what has 16 is the
network's weights and all between its layers.  Which of them is faster differs by machine and network, so it is measured
once and remembered.  64 bits are slow, and for comparisons: sums in another order then make no visible difference.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from phosphene import user_folders
from phosphene.errors import InputError, did_you_mean, first_line
from phosphene.files import parse_json, read_text
from phosphene.networks.layers import LOGITS
from phosphene.networks.network import Network
from phosphene.networks.speed.attention_products import AttentionProducts

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}

# Images at once in a trial, and how often each precision is tried.
_ROWS, _TIMES = 4, 2
# bf16 is taken where its pass takes no more than this share of fp32's: it should be worth its rounding.
_GAIN = 0.7
# Below this, in seconds an image, a pass in fp32 is short enough.
SHORT_PASS = 0.004
# A batch is made larger where an image takes no more than this share of its seconds then.
_FASTER = 0.95
# How far the last layer may be off in bf16, as a share of its size.
_OFF = 0.1


class PrecisionTiming(NamedTuple):
    """Seconds that a forward and backward pass of one image takes; infinite where it cannot be."""

    fp32: float
    bf16: float

    @property
    def best(self) -> str:
        return "bf16" if self.fp32 > SHORT_PASS and self.bf16 <= _GAIN * self.fp32 else "fp32"


def choose(network: Network, device: torch.device, requested: str = "auto", layers: Collection[str] = ()) -> str:
    """The precision asked for, or for "auto" the one of "fp32" and "bf16" that is faster here.

    Args:
        network: borrowed, on its device, and folded as it will be used.
        device: where it is.
        requested: "auto", "fp32", "bf16" or "fp64".
        layers: that are read: "auto" is bf16 only where these are nearly the same in it.

    Raises:
        InputError: there is no such precision, or the network does not run in it here.
    """
    if requested not in ("auto", *PRECISIONS):
        near = did_you_mean(requested, PRECISIONS)
        raise InputError(
            f"precision {requested!r}: expected auto, {', '.join([*PRECISIONS][:-1])} or {[*PRECISIONS][-1]}{near}"
        )
    if requested == "fp32" or (requested == "auto" and not _has_bf16(device)):
        return "fp32"
    if requested != "auto":
        _, problem = _measure(network, device, requested)
        if problem:
            raise InputError(f"precision {requested}: {network.name} does not run in it on {device.type} ({problem})")
        return requested
    best = _remembered(network, device, lambda: measure_timing(network, device)).best
    return best if best == "fp32" or _is_accurate(network, best, layers) else "fp32"


def _is_accurate(network: Network, precision: str, layers: Collection[str]) -> bool:
    """Whether layers give nearly the same in a precision as in fp32."""
    names = [layer for layer in layers if layer != LOGITS]
    if not names:
        return True

    noise = network.preprocessing.noise(1)
    own = network.activations(noise, names)
    with cast(network, precision)():
        other = network.activations(noise, names)
    return all((own[name].float() - other[name].float()).norm() <= _OFF * own[name].float().norm() for name in names)


def measure_timing(network: Network, device: torch.device) -> PrecisionTiming:
    """Measure both precisions, in turns."""
    own, _ = _measure(network, device, "fp32")
    first = measure_seconds(network, device) if own is not None else 0.0
    if own is None or first < SHORT_PASS:
        return PrecisionTiming(first, math.inf)
    other, _ = _measure(network, device, "bf16")
    if other is None or (own - other).norm() > _OFF * own.norm():
        return PrecisionTiming(first, math.inf)
    times: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(_TIMES):
        for name, seconds in times.items():
            with cast(network, name)():
                seconds.append(measure_seconds(network, device))
    return PrecisionTiming(min(times["fp32"]), min(times["bf16"]))


def best_batch_size(network: Network, device: torch.device, precision: str, rows: int, most: int) -> int:
    """How many images at once a device makes fastest: so many rows on a CPU, and elsewhere twice, four times, …

    A device with thousands of units idles on a small batch, so there the batch is doubled while an image takes less
    for it.

    Args:
        network: borrowed, on its device, and folded as it will be used.
        precision: of its passes, as `choose` gives it.
        rows: to begin with.
        most: rows that are wanted, or fit.
    """
    if device.type == "cpu" or most <= rows:
        return min(rows, most)
    with cast(network, precision)():
        try:
            fastest = min(measure_seconds(network, device, rows) for _ in range(_TIMES + 1))  # the first sets things up
            while rows < most:
                wider = min(2 * rows, most)
                seconds = min(measure_seconds(network, device, wider) for _ in range(_TIMES))
                if seconds > _FASTER * fastest:
                    break
                rows, fastest = wider, seconds
        except RuntimeError:  # it does not fit
            torch.cuda.empty_cache()
    return rows


def cast(network: Network, precision: str) -> Callable[[], AbstractContextManager[None]]:
    """A context in which a borrowed network's weights have that precision; they are converted once.

    In it the network is fed in that precision too.  It may be entered any number of times.
    """
    dtype = PRECISIONS[precision]
    tensors = [*network.module.parameters(), *network.module.buffers()]
    pairs = [(tensor, tensor.data, tensor.data.to(dtype)) for tensor in tensors if tensor.dtype == torch.float32]

    @contextmanager
    def entered() -> Iterator[None]:
        try:
            for tensor, _, converted in pairs:
                tensor.data = converted
            with AttentionProducts() if dtype == torch.bfloat16 else contextlib.nullcontext():
                yield
        finally:
            for tensor, own, _ in pairs:
                tensor.data = own

    return contextlib.nullcontext if dtype == torch.float32 else entered


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def _measure(network: Network, device: torch.device, precision: str) -> tuple[Tensor | None, str]:
    """What the last layer gives in a precision, and otherwise why it gives nothing."""
    try:
        with cast(network, precision)():
            output, images = _pass(network, device)
            (gradient,) = torch.autograd.grad(output.float().square().sum(), images)
    except Exception as error:  # of whatever is in the network
        return None, first_line(error)
    if not (output.isfinite().all() and gradient.isfinite().all()):
        return None, "what comes out is not finite"
    return output.detach().float(), ""


def _pass(network: Network, device: torch.device, rows: int = _ROWS) -> tuple[Tensor, Tensor]:
    """What the last layer that can be shown returns for images of noise, and the images."""
    images = network.preprocessing.noise(rows).to(device).requires_grad_()
    last = LOGITS if network.classes else network.layers[-1].name
    return network.activations(images, last, batch=rows, gradient=True)[last], images


def measure_seconds(network: Network, device: torch.device, rows: int = _ROWS) -> float:
    """What a forward and backward pass takes, in seconds an image.

    On a CPU that is this process's own time over its threads: what else the machine does should not decide.
    """

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def now() -> float:
        return time.process_time() / torch.get_num_threads() if device.type == "cpu" else time.perf_counter()

    synchronize()
    clock = now()
    output, images = _pass(network, device, rows)
    torch.autograd.grad(output.float().sum(), images)
    synchronize()
    return (now() - clock) / rows


# What was measured is remembered, by machine and network.

measured_timings: dict[str, PrecisionTiming] = {}


def _remembered(network: Network, device: torch.device, measure: Callable[[], PrecisionTiming]) -> PrecisionTiming:
    size = "x".join(map(str, network.preprocessing.size))  # type: ignore[arg-type]
    key = f"{machine(device)}, {network.digest} at {size}"
    if key not in measured_timings:
        kept = _read().get(key)
        if not isinstance(kept, dict) or not all(_is_time(kept.get(name)) for name in PrecisionTiming._fields):
            kept = measure()._asdict()
            if kept["fp32"] >= SHORT_PASS:
                _write(_read() | {key: kept})
        measured_timings[key] = PrecisionTiming(kept["fp32"], kept["bf16"])
    return measured_timings[key]


def _is_time(value: Any) -> bool:
    return isinstance(value, float) and value >= 0


def machine(device: torch.device) -> str:
    """What decides how fast a device is, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    return f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def memory_path() -> Path:
    """Where it is remembered: precision.json of the user's cache."""
    return user_folders.cache("precision.json")


def _read() -> dict[str, Any]:
    try:
        found = parse_json(read_text(memory_path(), "what was measured"), "what was measured")
    except InputError:  # none yet, or a damaged one
        return {}
    return found if isinstance(found, dict) else {}


def _write(known: dict[str, Any]) -> None:
    path = memory_path()
    aside = path.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):  # then it is measured again
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(known, indent=1))
        aside.replace(path)
