"""Torch's settings that a caller may have changed, as this package needs them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch.utils.checkpoint


@contextmanager
def default_torch_state() -> Iterator[None]:
    """Gradients on, no inference mode, no autocast, 32 bits by default, nothing compiled, and nothing computed anew for
    a backward pass.

    None of these changes what a network's outputs are; at the end all is as the caller had it.
    """
    default = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if default != torch.float32:
            stack.callback(torch.set_default_dtype, default)
            torch.set_default_dtype(torch.float32)
        stack.enter_context(_eager_execution())
        yield


class _PlainCheckpoint:
    """Stands for checkpointing that is reentrant, which does not go with the gradient of an image alone."""

    @staticmethod
    def apply(function: Any, preserve: Any, *args: Any) -> Any:
        return function(*args)


def _no_checkpoint(*_: Any, **__: Any) -> Iterator[None]:
    yield


# Activation checkpointing goes through these, which `torch.utils.checkpoint.checkpoint` looks up; by torch's version.
_CHECKPOINTS: dict[str, Any] = {
    "CheckpointFunction": _PlainCheckpoint,
    "_checkpoint_without_reentrant_generator": _no_checkpoint,
    "_checkpoint_without_reentrant_generator_impl": _no_checkpoint,
}
_lock = threading.Lock()
_own: dict[str, Any] = {}
_stance = ExitStack()
_depth = 0  # how many blocks, in all threads, are in work


@contextmanager
def _eager_execution() -> Iterator[None]:
    """A network runs as it is written, and a module's hooks are called once in a pass.

    Activation checkpointing, a network's own, timm's or transformers', keeps what it would compute anew; and what
    `torch.compile` returned is not compiled, which with hooks it would be once more for each pass.
    """
    global _depth
    module: Any = torch.utils.checkpoint
    with _lock:
        _depth += 1
        if _depth == 1:
            _own.update({name: getattr(module, name) for name in _CHECKPOINTS if hasattr(module, name)})
            vars(module).update({name: _CHECKPOINTS[name] for name in _own})
            # Where it is not imported nothing is compiled, and importing it takes seconds; torch 2.5 cannot say so.
            if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
                _stance.enter_context(torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if not _depth:
                vars(module).update(_own)
                _own.clear()
                _stance.close()
