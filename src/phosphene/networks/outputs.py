"""What a network returns: which tensor of it is the logits, and what comes after them (a softmax, a sigmoid)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from phosphene.errors import InputError, did_you_mean, join_names

_DEEPEST, _MOST = 6, 1000  # how deep containers may lie in each other, and how many tensors are looked at
# Keys of logits, by preference.
_LOGITS = ("logits", "out", "output", "outputs", "pred", "preds", "prediction", "predictions")
# Keys of what is certainly none: of transformers' outputs, of multi-task networks and of detectors.
_OTHERS = ("hidden_state", "pooler", "feature", "embed", "attention", "loss", "boxes", "masks", "keypoints", "aux")


class NamedTensor(NamedTuple):
    """A tensor in what a module returned, and where it stands there: keys and indices, with dots between."""

    name: str
    tensor: Tensor

    @property
    def key(self) -> str:
        return self.name.rpartition(".")[2].lower()


def tensors_of(output: Any) -> list[NamedTensor]:
    """All tensors in tuples, lists, dictionaries and objects, in order; a tensor alone has the name ""."""
    found = []
    for named in _walk(output, "", 0):
        found.append(named)
        if len(found) == _MOST:
            break
    return found


def _walk(output: Any, name: str, depth: int) -> Iterator[NamedTensor]:
    if isinstance(output, Tensor):
        yield NamedTensor(name, output)
    elif depth < _DEEPEST:
        for key, value in _items(output):
            yield from _walk(value, f"{name}.{key}" if name else str(key), depth + 1)


def _items(output: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(output, Mapping):
        yield from output.items()
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        yield from zip(output._fields, output, strict=True)
    elif isinstance(output, list | tuple):
        yield from enumerate(output)
    elif dataclasses.is_dataclass(output) or isinstance(getattr(output, "logits", None), Tensor):
        yield from vars(output).items()


def first_tensor(output: Any) -> Tensor | None:
    """The tensor in what a module returned: itself, its `logits`, or the first in a tuple, list or dictionary."""
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits  # type: ignore[no-any-return]
    return next((named.tensor for named in tensors_of(output)), None)


class Choice(NamedTuple):
    """Which tensor is read as a network's output: its name, and what a user should know where it is a guess."""

    name: str
    note: str = ""


def choose(output: Any, requested: str | int | None, name: str, depends_on: Any = None) -> Choice | None:
    """Which tensor of what a network returned for one image is its logits, or else its output; None without any.

    Args:
        output: what it returned.
        requested: the name or index that the user gives.
        name: the network's.
        depends_on: tells for two tensors' names whether the second is made from the first; called only where that
            matters.

    Raises:
        InputError: there is no such output.
    """
    found = [named for named in tensors_of(output) if named.tensor.is_floating_point()]
    if requested is not None and str(requested) != "":
        return Choice(_find_requested(str(requested), found, name))
    if not found or is_detection(output):
        return None
    for key in _LOGITS:
        for each in found:
            if each.key == key:
                return Choice(each.name)
    if len(found) == 1:
        return Choice(found[0].name)
    rows = [each for each in found if _is_vector(each.tensor) and not _is_other(each)]
    rows = [] if is_model_output(output) else rows
    if len(rows) > 1 and depends_on is not None:
        rows = [one for one in rows if not any(depends_on(one.name, other.name) for other in rows if other is not one)]
    best = (rows or [each for each in found if not _is_other(each) and each.tensor.ndim > 2] or found)[0]
    several = len(rows) > 1 or not rows
    return Choice(
        best.name, _guess(name, found, best) if several and any(not _is_other(each) for each in found) else ""
    )


def _guess(name: str, found: Sequence[NamedTensor], taken: NamedTensor) -> str:
    names = join_names([each.name for each in found])
    return f"{name} returns {len(found)} tensors ({names}): {taken.name!r} is taken; output= chooses another"


def _find_requested(requested: str, found: Sequence[NamedTensor], name: str) -> str:
    for each in found:
        if requested in (each.name, each.name.rpartition(".")[2]):
            return each.name
    if requested.isdecimal() and int(requested) < len(found):
        return found[int(requested)].name
    names = [each.name or "0" for each in found]
    near = did_you_mean(requested, names)
    raise InputError(
        f"output {requested!r} of {name}: expected one of {join_names(names) or 'none: it returns no tensor'}{near}"
    )


def _is_vector(tensor: Tensor) -> bool:
    """Whether it may be the logits of one image: (1, classes), and maps of one pixel."""
    return tensor.ndim >= 2 and len(tensor) == 1 and tensor[0].numel() == tensor.shape[1]


def _is_other(named: NamedTensor) -> bool:
    return any(word in named.key for word in _OTHERS)


def is_model_output(output: Any) -> bool:
    """Whether it is an output of transformers', whose logits are called so."""
    return any(kind.__name__ == "ModelOutput" for kind in type(output).__mro__)


def is_detection(output: Any) -> bool:
    """Whether it is boxes of what was found in each image, as detectors return it."""
    return isinstance(output, list | tuple) and any(each.key == "boxes" for each in tensors_of(output))


def is_called_logits(name: str) -> bool:
    return name.rpartition(".")[2].lower() in _LOGITS


def is_no_logits(named: NamedTensor) -> bool:
    """Whether its name says that it is something else, such as features."""
    return bool(named.name) and _is_other(named)


def pick(output: Any, name: str) -> Tensor | None:
    """The tensor of that name in what a network returned."""
    if isinstance(output, Tensor):
        return output
    return next((each.tensor for each in tensors_of(output) if each.name == name), None)


def logits(output: Any) -> Tensor:
    """What a classifier returned, as one tensor (rows, classes).

    Raises:
        InputError: there is no tensor in it.
    """
    chosen = choose(output, None, "the network")
    tensor = None if chosen is None else pick(output, chosen.name)
    if tensor is None:
        raise InputError(
            f"the network returned {type(output).__name__}: expected a tensor, or something with one in it"
        )
    return as_logits(tensor)


def as_logits(tensor: Tensor) -> Tensor:
    """(rows, classes), from maps of one pixel, and from one number for each row, alike."""
    if tensor.ndim == 0:
        return tensor.view(1, 1)
    if tensor.ndim == 1:
        return tensor[:, None]
    return tensor.flatten(1) if tensor.ndim > 2 and tensor[0, 0].numel() == 1 else tensor


# What comes after the logits.

Kind = Literal["softmax", "sigmoid"]
_KINDS: dict[Any, Kind] = {
    F.softmax: "softmax",
    F.log_softmax: "softmax",
    torch.softmax: "softmax",
    torch.log_softmax: "softmax",
    torch.special.softmax: "softmax",
    torch.special.log_softmax: "softmax",
    Tensor.softmax: "softmax",
    Tensor.log_softmax: "softmax",
    torch.sigmoid: "sigmoid",
    torch.special.expit: "sigmoid",
    Tensor.sigmoid: "sigmoid",
    Tensor.sigmoid_: "sigmoid",
    F.logsigmoid: "sigmoid",
}


class Ending(NamedTuple):
    """A softmax or sigmoid (or the logarithm of one) that a network ends in.

    Attributes:
        kind: which.
        before: how many such functions are called before it in a pass.
    """

    kind: Kind
    before: int


class Watch(TorchFunctionMode):
    """Records what every softmax and sigmoid returns, whether a module or a function calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Kind, Tensor]] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        if function in _KINDS:
            self.seen.append((_KINDS[function], result))
        return result

    def ending(self, output: Tensor) -> Ending | None:
        """Which of them returned the network's output, if one did."""
        for index, (kind, made) in reversed(list(enumerate(self.seen))):
            if made.data_ptr() == output.data_ptr() and made.numel() == output.numel():
                return Ending(kind, index)
        return None

    def hands_on(self, output: Tensor) -> bool:
        """Whether the output has a sigmoid's numbers, clamped or copied."""
        same = [made for kind, made in self.seen if kind == "sigmoid" and made.numel() == output.numel()]
        return any(torch.allclose(made.flatten().double(), output.flatten().double(), atol=1e-3) for made in same)


class Bypass(TorchFunctionMode):
    """Lets what goes into that softmax or sigmoid through unchanged, so that the logits come out."""

    def __init__(self, ending: Ending) -> None:
        super().__init__()
        self.before, self.count = ending.before, 0

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function in _KINDS:
            self.count += 1
            if self.count == self.before + 1:
                return args[0] if args else (kwargs or {})["input"]
        return function(*args, **(kwargs or {}))


Probability = Literal["softmax", "sigmoid", "itself", "none"]


def probabilities(logits: Tensor, kind: Probability) -> Tensor:
    """Of each class, (rows, classes): by a softmax over them, by a sigmoid of each, as they are, or not a number."""
    if kind == "softmax":
        return logits.softmax(dim=1)
    if kind == "sigmoid":
        return logits.sigmoid()
    return logits if kind == "itself" else torch.full_like(logits, torch.nan)
