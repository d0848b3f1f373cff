"""Networks of images of transformers: from its hub, or from a folder that it saved.

Nothing that comes with a network is executed, and a network is built without memory first, to see whether it is as
large as the file of its weights says.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from phosphene.errors import InputError, first_line
from phosphene.extras import require
from phosphene.networks.checkpoint import check_checkpoint
from phosphene.networks.labels import Labels, imagenet_labels
from phosphene.networks.network import Network
from phosphene.networks.sources.transformers.architectures import Architecture, architectures, fed_by_images
from phosphene.networks.sources.transformers.files import CONFIG, check_config, find_folder, weight_files
from phosphene.networks.sources.transformers.processor import processor_values, read_preprocessing
from phosphene.networks.weights import read_weights

_LARGEST_NETWORK = 2**32  # numbers, where there is no file to compare with
_MOST_TENSORS = 10_000
_HEAD = 2**22  # numbers that a network may have beyond its file: a head that has no weights


def open_transformers(name: str | Path, weights: str | Path | None = None, pretrained: bool = True) -> Network:
    """A network of transformers with its weights, with those of a file, or (`pretrained=False`) untrained.

    It is what the configuration's `architectures` names.  A network of images and texts gives its image encoder.

    Args:
        name: a folder that holds a `config.json`, or a name on the hub ("google/vit-base-patch16-224").
        weights: a `.safetensors` file, or a state dictionary saved by torch, for the network of that name.

    Raises:
        InputError: it cannot be had, takes no images, needs code of its own, or is damaged.
    """
    transformers = require("transformers", extra="transformers", what=str(name))
    folder, title = find_folder(name, pretrained and weights is None)
    source = weight_source(folder, title, weights, pretrained)
    with quiet(transformers):
        config = read_config(transformers, folder, title)
        ways = architectures(transformers, config, title)
        if source.given:
            way, plan, module = trained(ways, source)
        else:
            way, plan = ways[0], _planned(ways[0], title, source.limit)
            module = _made(way, title)
        values = processor_values(transformers, folder, title)
    preprocessing, notes = read_preprocessing(values, way.config, plan, title)
    if way.note:
        notes["part"] = way.note
    return Network(module.float(), preprocessing, _labels(config) if way.labeled else None, title, notes=notes)


# Modules


class WeightSource(NamedTuple):
    """Where a network's weights come from.

    Attributes:
        folder: of its configuration, and of its own weights.
        title: what the network is called.
        state: other weights, by name; None for its own.
        origin: what the weights are called.
        limit: how many numbers there may be.
        given: whether there are any.
    """

    folder: Path
    title: str
    state: Mapping[str, torch.Tensor] | None
    origin: str
    limit: int
    given: bool


def weight_source(folder: Path, title: str, weights: str | Path | None, pretrained: bool) -> WeightSource:
    """The weights of a folder, those of a file, or none; its configuration is looked at first.

    Raises:
        InputError: the configuration is refused, or there are no weights, or they are damaged.
    """
    check_config(folder / CONFIG, title)
    if weights is not None:
        state = read_weights(weights)
        limit = sum(tensor.numel() for tensor in state.values()) + _HEAD
        return WeightSource(folder, title, state, str(weights), limit, True)
    if not pretrained:
        return WeightSource(folder, title, None, title, _LARGEST_NETWORK, False)
    files = weight_files(folder, title)
    for file in files:
        if file.suffix == ".bin":
            check_checkpoint(file, f"{file.name} of {title}")
    limit = sum(file.stat().st_size for file in files) + _HEAD  # each number takes a byte at least
    return WeightSource(folder, title, None, title, limit, True)


def read_config(transformers: Any, folder: Path, title: str) -> Any:
    """The configuration in a folder, which has been checked.

    Raises:
        InputError: transformers does not read it.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of a damaged file's many
        raise InputError(f"the configuration of {title} is not read: {first_line(error)}") from error
    return _plain_outputs(config)


def _plain_outputs(config: Any) -> Any:
    """The configuration, whose network gives an object and no attentions, which fast attention has not."""
    parts = [getattr(config, name, None) for name in ("vision_config", "backbone_config")]
    for part in (config, *parts):
        if part is not None and not isinstance(part, Mapping):
            part.output_attentions = False
            part.return_dict = True
    return config


def _made(way: Architecture, title: str, **options: Any) -> nn.Module:
    try:
        return way.make(**options)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{title} cannot be built from its {CONFIG}: {first_line(error)}") from error


def _planned(way: Architecture, title: str, limit: int) -> nn.Module:
    """The network without memory for its numbers, of which there may be no more than `limit`."""
    numbers = tensors = 0

    def count(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal numbers, tensors
        numbers += 0 if parameter is None else parameter.numel()
        tensors += 1
        if numbers > limit or tensors > _MOST_TENSORS:
            raise InputError(f"{title} is damaged: its {CONFIG} asks for more numbers than its weights are")

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            return _made(way, title)
    finally:
        hook.remove()


def trained(ways: Sequence[Architecture], source: WeightSource) -> tuple[Architecture, nn.Module, nn.Module]:
    """The first way to build the network for which there are all weights, its plan, and the network.

    Raises:
        InputError: there is none, or it asks for more numbers than its weights are.
    """
    problem: InputError | None = None
    for way in ways:
        plan = _planned(way, source.title, source.limit)
        try:
            module, missing = _loaded(way, source.folder, source.state, source.origin)
            if missing and all(name.startswith("pooler.") for name in missing) and way.without_pooler():
                module, missing = _loaded(way, source.folder, source.state, source.origin, **way.without_pooler())
            if not missing:
                return way, plan, fed_by_images(module.eval())
            raise InputError(_incomplete(way, missing, source.origin))
        except InputError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _incomplete(way: Architecture, missing: Sequence[str], origin: str) -> str:
    more = " and others" if len(missing) > 1 else ""
    expected = "an image classifier" if way.kind.__name__.endswith("ForImageClassification") else way.kind.__name__
    return f"the weights of {origin} have none for {missing[0]}{more}: expected those of {expected}"


def _loaded(
    way: Architecture, folder: Path, state: Mapping[str, torch.Tensor] | None, origin: str, **options: Any
) -> tuple[nn.Module, list[str]]:
    """The network with its own weights, or with those given, and the names of those that there are none for.

    transformers knows by what names weights went before.
    """
    if state is None and (folder / "adapter_config.json").is_file():
        raise InputError(f"{origin} is an adapter to another network: expected a network with all of its weights")
    options |= {"local_files_only": True} if state is None else {"state_dict": dict(state)}
    options |= {"config": way.config, "output_loading_info": True, "ignore_mismatched_sizes": True}
    source = folder if state is None else None
    module, found = _from_pretrained(way, source, origin, options)
    missing = _missing(module, found)
    prefix = _prefix(missing, found["unexpected_keys"]) if way.note else ""
    if prefix:  # a part that goes by a longer name in the whole
        options["key_mapping"] = {f"^{re.escape(prefix)}": ""}
        module, found = _from_pretrained(way, source, origin, options)
        missing = _missing(module, found)
    return module, missing


def _from_pretrained(
    way: Architecture, source: Path | None, origin: str, options: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    try:
        with torch.random.fork_rng(devices=[]):
            module, found = way.kind.from_pretrained(source, **options)
    except Exception as error:
        raise InputError(f"the weights of {origin} are not read: {first_line(error)}") from error
    for name, given, expected in sorted(found["mismatched_keys"]):
        raise InputError(
            f"the weights of {origin} are of another network: {name} is {tuple(given)} and not {tuple(expected)}"
        )
    return module, found


def _missing(module: nn.Module, found: Mapping[str, Any]) -> list[str]:
    own = [name for name, _ in module.named_parameters()]
    own += [name for name, _ in module.named_buffers() if name.endswith(("running_mean", "running_var"))]
    return sorted(set(found["missing_keys"]) & set(own))


def _prefix(missing: Sequence[str], others: Sequence[str]) -> str:
    """What stands before the names of a part's weights in those of the whole; empty if that is not clear."""
    given = set(others)
    starts = {name.removesuffix(missing[0]) for name in given if missing and name.endswith(f".{missing[0]}")}
    fitting = [start for start in sorted(starts, key=len) if all(start + name in given for name in missing)]
    return fitting[0] if fitting else ""


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """What transformers logs of loading is said in errors and notes."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(logging.CRITICAL)
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _labels(config: Any) -> Labels | None:
    """The names of the classes; with all that ImageNet's are called by where they are ImageNet's."""
    given = {int(index): str(name) for index, name in (getattr(config, "id2label", None) or {}).items()}
    names = [given.get(index, "").strip() for index in range(len(given))]
    if not all(names) or all(name == f"LABEL_{index}" for index, name in enumerate(names)):
        return None
    if len(names) == 1000:
        known = imagenet_labels()
        first = [name.partition(",")[0].strip().casefold() for name in names]
        same = sum(name == label.name.casefold() for name, label in zip(first, known, strict=True))
        if same > 0.95 * len(known):
            return known
    return Labels(names)
