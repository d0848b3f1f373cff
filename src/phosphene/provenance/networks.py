"""The network that an image was made with, opened again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from phosphene.errors import InputError, printable
from phosphene.networks.named import open_referenced
from phosphene.networks.network import Network
from phosphene.planes import plane_width
from phosphene.provenance.records import NetworkRecord


def open_recorded_network(
    name: str | Path,
    known: NetworkRecord,
    network: Network | None,
    call: str,
    *,
    trust: bool = False,
    from_file: bool = True,
) -> Network:
    """A network that an image was made with: the one given, or the one that the image names, as far as it is data.

    Args:
        name: of the image, or its path.
        known: what it says of the network.
        network: the caller's, or None.
        call: what to call with a network of one's own, for the message.
        trust: follow whatever the image says (see `networks.named`).
        from_file: whether the image is a file, which the command line may have been given.

    Raises:
        InputError: it is another network, has other preprocessing, or is not opened by what the image says.
    """
    if network is None:
        instead = f"call {call}"
        if from_file:
            instead = f"open it and {instead}" if known.source is None else "give the network yourself (-n NETWORK)"
        network = open_referenced(
            f"image {str(name)!r}",
            known.name,
            known.source,
            known.weights,
            known.preprocessing_fields,
            trust=trust,
            instead=instead,
        )
    if differs := difference(known, network):
        raise InputError(f"image {str(name)!r} was made with {differs}")
    return network


def difference(known: NetworkRecord, network: Network) -> str:
    """How the network that an image names is another than the one that is here; empty if it is not."""
    if network.digest != known.weights:
        return f"{printable(known.name)} of weights {known.weights}, and these ({network.name}) are {network.digest}"
    then, now = _pixel_scaling(known.preprocessing_fields), _pixel_scaling(asdict(network.preprocessing))
    for name in now:
        if then[name] != now[name]:
            return f"a network with other preprocessing: {name} {then[name]}, and here {now[name]}"
    return ""


def check_size(path: str | Path, known: NetworkRecord, network: Network, image: Image.Image) -> None:
    """Raise an `InputError` where an image without a size in its recipe is not as large as its network's input."""
    size = tuple(known.input.size)
    if size != network.preprocessing.size and size != (image.height, plane_width(image, known.input.channels)):
        raise InputError(f"image {str(path)!r} tells of {size[0]}x{size[1]} pixels, and has other ones: it is damaged")


def _pixel_scaling(preprocessing: dict[str, Any]) -> dict[str, Any]:
    """What of the preprocessing scales pixels, but for the size, which the recipe may change; as JSON holds it."""
    names = ("mean", "std", "value_range", "channel_order", "channels", "layout")
    return {name: json.loads(json.dumps(preprocessing[name])) for name in names}
