"""What photographs are like, and what a network makes of them.

`Photographs` are averages over the pixels of photographs: their colours and their spectrum, for canvases and priors.
`Activations` are averages over what a network's channels give on photographs, for priors.  Of no photograph more than
its part in these averages is kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from phosphene.errors import InputError
from phosphene.files import is_file, parse_json
from phosphene.images import SUFFIXES, readable
from phosphene.networks.network import Layer, Network
from phosphene.networks.preprocessing import Preprocessing

OnProgress = Callable[[int, int], None]
"""Is told how many steps are done, and of how many."""

LIMIT = 500
"""Over how many photographs a network's activations are gathered at most."""

# Up to so many cycles a pixel the spectrum is measured: near the highest, 0.5, it is the resizing's and not the
# photographs'.  It is kept at so many frequencies an octave, in so many directions of the half circle.
_MEASURED, _PER_OCTAVE, _DIRECTIONS = 1 / 3, 3, 36

_PHOTOGRAPHS, _ACTIVATIONS = "photographs", "activations"
_MADE_BY = {_PHOTOGRAPHS: "phosphene statistics DIR", _ACTIVATIONS: "phosphene statistics DIR -n NETWORK"}


# Photographs


@dataclass(frozen=True, eq=False)
class Photographs:
    """Averages over photographs, each one's middle square: their colours and their spectrum.

    The *planes* of an image are what its colours are mixed from: `pixels = mean + colours @ planes`, in 0..1.  Those of
    photographs are uncorrelated and have unit variance.

    Attributes:
        mean: the mean colour in 0..1, RGB: (channels,).
        colours: a square root of the covariance of the colours, in 0..1: (channels, channels).  The columns are its
            principal axes, each times the standard deviation along it, from the widest (light against dark) down.
        frequencies: where the spectrum was measured, in cycles an image, rising: (frequencies,).
        magnitude: the mean magnitude of the planes' Fourier coefficients (orthonormal) at these frequencies, in
            directions evenly spread from -90 degrees (downwards) to below 90: (channels, frequencies, directions).
        slope: the a of the power law 1/f^a that fits the first plane's magnitude best.
        count: of the photographs.
        unreadable: files that were passed over, since they are no images, or damaged.
    """

    mean: Tensor
    colours: Tensor
    frequencies: Tensor
    magnitude: Tensor
    slope: float
    count: int
    unreadable: int = 0

    def magnitude_for(self, height: int, width: int) -> Tensor:
        """The magnitude of the Fourier coefficients of planes of that size: (channels, height, width // 2 + 1).

        For `torch.fft.irfft2(…, s=(height, width), norm="ortho")`; with the phases of any real image, such as those of
        the `rfft2` of noise, the planes have unit variance.  The mean of a plane (frequency 0) is 0: an image's
        mean colour is then `mean`.

        Photographs are alike at all scales, so frequencies are taken in cycles an image and not a pixel: the image is
        like a whole photograph, whatever its size.  Of an image that is no square it is the shorter side that counts.
        Beyond the measured frequencies the magnitude falls as 1/f^slope.
        """
        frequency, angle = _polar(height, width)
        magnitude = self._interpolated(frequency.clamp_min(1e-6), angle)
        magnitude[:, 0, 0] = 0
        power = (magnitude.square() * multiplicity(width)).sum((1, 2), keepdim=True)
        scale = (height * width / power.clamp_min(1e-12)).sqrt()
        return (magnitude * scale).float()  # (channels, height, width // 2 + 1)

    def _interpolated(self, frequency: Tensor, angle: Tensor) -> Tensor:
        """Linear in the logarithms of frequency and magnitude, and in the direction, which is periodic."""
        within = frequency.clamp(float(self.frequencies[0]), float(self.frequencies[-1]))
        nodes, table = self.frequencies.double().log(), self.magnitude.double().log()
        row = (torch.searchsorted(nodes, within.log(), right=True) - 1).clamp(0, len(nodes) - 2)
        down = ((within.log() - nodes[row]) / (nodes[row + 1] - nodes[row])).clamp(0, 1)
        directions = table.shape[2]
        turn = (angle + 90) / 180 * directions
        column = turn.floor()
        across, first = turn - column, column.long() % directions
        second = (first + 1) % directions

        def at(row: Tensor) -> Tensor:
            return torch.lerp(table[:, row, first], table[:, row, second], across)

        return torch.lerp(at(row), at(row + 1), down).exp() * (frequency / within) ** -self.slope

    def digest(self) -> str:
        """The first 16 hexadecimal digits of SHA-256 over the averages."""
        return _digest({name: getattr(self, name) for name in _TABLES} | {"slope": torch.tensor(self.slope)})

    def save(self, path: str | Path) -> Path:
        """Write to a safetensors file.

        Raises:
            InputError: it cannot be written.
        """
        metadata = {"slope": repr(self.slope), "count": str(self.count), "unreadable": str(self.unreadable)}
        return _write(Path(path), {name: getattr(self, name) for name in _TABLES}, _PHOTOGRAPHS, metadata)


_TABLES = ("mean", "colours", "frequencies", "magnitude")


def load_photographs(path: str | Path) -> Photographs:
    """What `Photographs.save` wrote.

    Raises:
        InputError: there is no such file, it is damaged, or it holds something else.
    """
    tensors, metadata = _read(Path(path), _PHOTOGRAPHS)
    try:
        found = Photographs(
            **{name: tensors[name] for name in _TABLES},
            slope=float(metadata["slope"]),
            count=int(metadata["count"]),
            unreadable=int(metadata["unreadable"]),
        )
        _check(found)
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise _damaged(Path(path), _PHOTOGRAPHS) from error
    return found


def _check(found: Photographs) -> None:
    channels, nodes, directions = found.magnitude.shape
    shapes = ((channels,), (channels, channels), (nodes,), (channels, nodes, directions))
    tensors = [getattr(found, name) for name in _TABLES]
    if tuple(tuple(tensor.shape) for tensor in tensors) != shapes or min(channels, nodes - 1, directions) < 1:
        raise ValueError("shapes")
    if not all(tensor.dtype == torch.float32 and bool(tensor.isfinite().all()) for tensor in tensors):
        raise ValueError("numbers")
    if not math.isfinite(found.slope) or not bool((found.magnitude > 0).all()):
        raise ValueError("numbers")
    if float(found.frequencies[0]) <= 0 or not bool((found.frequencies.diff() > 0).all()):
        raise ValueError("frequencies")


@lru_cache(maxsize=1)
def bundled_photographs() -> Photographs:
    """The averages that ship: over 200 photographs, one for every fifth class of ImageNet.

    Mean, colours and spectrum are all of these same photographs, which do not ship themselves.
    """
    with resources.as_file(resources.files("phosphene") / "data" / "photographs.safetensors") as path:
        return load_photographs(path)


def photographs_in(directory: str | Path, limit: int | None = None) -> list[Path]:
    """The image files of a folder and of those in it, by their names' endings, sorted; of more, `limit` evenly spread.

    Raises:
        InputError: there is no such folder, or no image file in it.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"photographs {str(directory)!r}: there is no such folder")
    found = sorted(path for path in directory.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"photographs {str(directory)!r}: there is no image file in this folder")
    return _evenly(found, limit)


def measure_photographs(
    paths: Iterable[str | Path], size: int = 256, on_progress: OnProgress | None = None
) -> Photographs:
    """Average photographs, each brought to `size` pixels by its shorter side, and its middle square cut out.

    They are read twice: the planes of which the spectrum is measured need the colours of all.

    Args:
        paths: image files; those that cannot be read are passed over.  For good high frequencies they should be
            larger than `size`.

    Raises:
        InputError: none of them can be read, all are of one colour, or the size is below 16.
    """
    files = [Path(path) for path in paths]
    if size < 16:
        raise InputError(f"size {size}: expected at least 16 pixels, since less shows no spectrum")
    show = on_progress or (lambda done, total: None)
    colour = _Colour()
    for done, pixels in enumerate(_decoded(files, Preprocessing(size)), 1):
        if pixels is not None:
            colour.add(pixels.double() / 255)
        show(done, 2 * len(files))
    if not colour.count:
        raise _none_readable(files)
    mean, colours = colour.mean(), colour.square_root()
    unmixing = torch.linalg.inv(colours)
    total = torch.zeros(3, size, size // 2 + 1, dtype=torch.float64)
    for done, pixels in enumerate(_decoded(files, Preprocessing(size)), 1):
        if pixels is not None:
            planes = torch.tensordot(unmixing, pixels.double() / 255 - mean.view(-1, 1, 1), 1)
            total += _periodic_spectrum(planes).abs()
        show(len(files) + done, 2 * len(files))
    frequencies, magnitude, slope = _table(total / colour.count)
    return Photographs(
        mean.float(), colours.float(), frequencies.float(), magnitude.float(), slope,
        colour.count, len(files) - colour.count,
    )  # fmt: skip


class _Colour:
    """Sums over pixels, from which the mean and the covariance of their colours follow."""

    def __init__(self) -> None:
        self.count = 0
        self.first = torch.zeros(3, dtype=torch.float64)
        self.second = torch.zeros(3, 3, dtype=torch.float64)

    def add(self, pixels: Tensor) -> None:
        colours = pixels.flatten(1)  # (channels, pixels)
        self.count += 1
        self.first += colours.mean(1)
        self.second += colours @ colours.T / colours.shape[1]

    def mean(self) -> Tensor:
        return self.first / self.count

    def square_root(self) -> Tensor:
        """U sqrt(S) of the covariance U S U^T: principal axes, each times the standard deviation along it."""
        covariance = self.second / self.count - torch.outer(self.mean(), self.mean())
        axes, variances, _ = torch.linalg.svd(covariance)
        axes = axes * torch.where(axes.sum(0) < 0, -1.0, 1.0)  # of the two directions of an axis, the lighter
        rounding = 1 / 12 / 255**2  # the variance that rounding to 8 bits makes: grey photographs have no more
        colours: Tensor = axes * variances.clamp_min(rounding).sqrt()
        return colours


def _periodic_spectrum(planes: Tensor) -> Tensor:
    """The orthonormal `rfft2` of planes without the cross that the jumps from edge to opposite edge make.

    Of an image that is the sum of a periodic one and of one with no detail inside, the former (Moisan, "Periodic plus
    smooth image decomposition", 2011): unlike behind a window, all of the image counts alike.
    """
    height, width = planes.shape[-2:]
    jumps = torch.zeros_like(planes)
    vertical, horizontal = planes[..., -1, :] - planes[..., 0, :], planes[..., -1] - planes[..., 0]
    jumps[..., 0, :] += vertical
    jumps[..., -1, :] -= vertical
    jumps[..., 0] += horizontal
    jumps[..., -1] -= horizontal
    rows, columns = (2 * torch.cos(2 * math.pi * frequency) for frequency in _frequencies(height, width))
    laplacian = rows[:, None] + columns[None] - 4
    laplacian[0, 0] = 1
    smooth = torch.fft.rfft2(jumps, norm="ortho") / laplacian
    smooth[..., 0, 0] = 0  # the mean stays with the periodic part
    periodic: Tensor = torch.fft.rfft2(planes, norm="ortho") - smooth
    return periodic  # (…, height, width // 2 + 1)


def _frequencies(height: int, width: int) -> tuple[Tensor, Tensor]:
    """The frequencies of the rows and the columns of an `rfft2`, in cycles a pixel."""
    return torch.fft.fftfreq(height, dtype=torch.float64), torch.fft.rfftfreq(width, dtype=torch.float64)


def _polar(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Of each coefficient of an `rfft2` the frequency, in cycles a shorter side, and the direction in degrees."""
    rows, columns = (frequency * min(height, width) for frequency in _frequencies(height, width))
    rows, columns = torch.meshgrid(rows, columns, indexing="ij")
    return torch.hypot(rows, columns), torch.rad2deg(torch.atan2(rows, columns))  # both (height, width // 2 + 1)


def multiplicity(width: int) -> Tensor:
    """How often each column of an `rfft2` stands in the full spectrum: all but the first and the middle one twice."""
    counts = torch.full((width // 2 + 1,), 2.0, dtype=torch.float64)
    counts[0] = 1
    if width % 2 == 0:
        counts[-1] = 1
    return counts


def _table(magnitude: Tensor) -> tuple[Tensor, Tensor, float]:
    """A mean spectrum (channels, size, size // 2 + 1) as a small smooth table: frequencies, magnitude and slope.

    Each entry is a mean, in the logarithm, over the coefficients about it: as wide as the table is fine or, where
    coefficients are fewer, half a cycle.  Before, the power law is taken out, so that the mean is nearly of equals.
    """
    size = magnitude.shape[1]
    frequency, angle = _polar(size, size)
    highest = _MEASURED * size
    measured = (frequency > 0) & (frequency <= highest)
    frequency, angle = frequency[measured], angle[measured]
    spectrum = magnitude[:, measured]
    if not bool((spectrum[0] > 0).any()):
        raise InputError("the photographs are of one colour each: expected some with detail in them")
    seen = spectrum.amax(1, keepdim=True) > 1e-6 * spectrum.amax()
    logarithm = torch.where(seen, spectrum, spectrum[:1]).clamp_min(1e-12).log()  # grey photographs have one plane
    slope = _slope(frequency, logarithm[0])
    flat = logarithm + slope * frequency.log()
    nodes = torch.logspace(0, math.log2(highest), round(_PER_OCTAVE * math.log2(highest)) + 1, 2, dtype=torch.float64)
    directions = torch.arange(_DIRECTIONS, dtype=torch.float64) * 180 / _DIRECTIONS - 90
    turns = (angle - directions[:, None] + 90) % 180 - 90  # (directions, coefficients)
    rows = []
    for node in nodes.tolist():
        octaves = max(0.5 / _PER_OCTAVE, math.log2(1 + 0.5 / node))
        degrees = max(90 / _DIRECTIONS, math.degrees(0.5 / node))
        distance = ((frequency / node).log2() / octaves) ** 2 + (turns / degrees) ** 2
        rows.append(flat @ torch.softmax(-distance / 2, 1).T - slope * math.log(node))
    return nodes, torch.stack(rows, 1).exp(), slope


def _slope(frequency: Tensor, logarithm: Tensor) -> float:
    """The a of 1/f^a by least squares in the logarithms, in which each octave counts alike; both (coefficients,)."""
    weight = frequency**-2 / (frequency**-2).sum()
    centred = frequency.log() - (weight * frequency.log()).sum()
    return -float((weight * centred * logarithm).sum() / (weight * centred.square()).sum())


# Activations


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """What the channels of one layer give on photographs; each tensor is (channels,).

    Attributes:
        mean, std: over all photographs and positions.
        mean_spread: the standard deviation, between photographs, of a photograph's own mean over its positions.
        std_spread: the standard deviation, between photographs, of a photograph's own standard deviation.
    """

    mean: Tensor
    std: Tensor
    mean_spread: Tensor
    std_spread: Tensor


@dataclass(frozen=True, eq=False)
class Activations:
    """What a network's channels give on photographs.

    Attributes:
        network: its name.
        weights: its digest.
        count: of the photographs.
        layers: by their names, in the order of calls.
        fed: how the network was fed: its preprocessing's fields.
        unreadable: files that were passed over, since they are no images, or damaged.
    """

    network: str
    weights: str
    count: int
    layers: dict[str, LayerStatistics]
    fed: dict[str, Any]
    unreadable: int = 0

    def digest(self) -> str:
        """The first 16 hexadecimal digits of SHA-256 over the names of the layers and their statistics."""
        return _digest(self._tensors())

    def save(self, path: str | Path) -> Path:
        """Write to a safetensors file; folders that are missing are made.

        Raises:
            InputError: it cannot be written.
        """
        metadata = {
            "network": self.network,
            "weights": self.weights,
            "count": str(self.count),
            "unreadable": str(self.unreadable),
            "layers": json.dumps(list(self.layers)),  # in their order, which the tensors of a file do not have
            "fed": json.dumps(self.fed),
        }
        return _write(Path(path), self._tensors(), _ACTIVATIONS, metadata)

    def _tensors(self) -> dict[str, Tensor]:
        return {f"{kind}/{name}": getattr(layer, kind) for name, layer in self.layers.items() for kind in _KINDS}


_KINDS = tuple(field.name for field in fields(LayerStatistics))


def statistics_layers(network: Network) -> list[Layer]:
    """The layers over which statistics are gathered by default, in the order of calls.

    These are the convolutions' outputs that have more than one position; they are from before the activation, unless
    the convolution itself has one in it, as Keras's may.  A network with fewer than three (a vision transformer) has
    those of its normalisations and blocks of tokens besides.

    Raises:
        InputError: it has none.
    """
    modules = dict(network.module.named_modules())
    spatial = [layer for layer in network.layers if math.prod(layer.positions) > 1]
    convolutions = [
        layer
        for layer in spatial
        if len(layer.positions) == 2 and _is_convolution(modules[network.call(layer.name)[0]])
    ]
    chosen = convolutions
    if len(convolutions) < 3:
        chosen = [layer for layer in spatial if layer in convolutions or _is_of_tokens(layer)]
    if not chosen:
        why = network.limit or "no convolution of it, nor any block of tokens, has more than one position"
        raise InputError(f"{network.name} has no layer to gather statistics of: {why}; name layers that it has")
    return chosen


def _is_convolution(module: nn.Module) -> bool:
    """By its name, since each framework has its own; a block of several that is called so is none."""
    named = [inner for inner in module.modules() if "Conv" in type(inner).__name__]
    return named == [module]


def _is_of_tokens(layer: Layer) -> bool:
    """Whether it is a normalisation or a block of tokens, or of maps on their way through linear layers (Swin)."""
    named = any(kind in layer.type for kind in ("LayerNorm", "RMSNorm")) or layer.type.endswith(("Block", "Layer"))
    return named and layer.channels_last


def gather(
    network: Network,
    paths: Iterable[str | Path],
    *,
    layers: Sequence[str] | None = None,
    device: torch.device | str | None = None,
    batch: int = 16,
    limit: int | None = LIMIT,
    on_progress: OnProgress | None = None,
) -> Activations:
    """What a network's channels give on photographs, which it is fed as its preprocessing says.

    Args:
        network: it is handed back as it came.
        paths: image files; those that cannot be read are passed over.
        layers: names; by default `statistics_layers`.
        device: where the network runs; by default where its weights are.
        batch: photographs at once.
        limit: of more photographs so many, evenly spread, are used; None: all.
        on_progress: called with how many files are done, and of how many.

    Raises:
        InputError: no photograph can be read, a layer is not there, or gives numbers that are not finite.
    """
    files = _evenly([Path(path) for path in paths], limit)
    chosen = statistics_layers(network) if layers is None else [network.layer(name) for name in layers]
    moments = {layer.name: _Moments() for layer in chosen}
    if not moments:
        raise InputError("no layers: expected at least one layer's name")
    if device is None:
        device = next((tensor.device for tensor in network.module.parameters()), torch.device("cpu"))
    count = 0
    with network.borrowed(device), torch.no_grad():
        for done, pixels in _batches(files, network.preprocessing, batch):
            if pixels is not None:
                count += len(pixels)
                network.read(pixels.to(device), {name: of_layer.add for name, of_layer in moments.items()})
            if on_progress is not None:
                on_progress(done, len(files))
    if not count:
        raise _none_readable(files)
    found = {name: of_layer.statistics() for name, of_layer in moments.items()}
    for name, layer in found.items():
        if not all(bool(getattr(layer, kind).isfinite().all()) for kind in _KINDS):
            raise InputError(f"layer {name!r} of {network.name} gives numbers on these photographs that are not finite")
    return Activations(
        network.name, network.digest, count, found, _fed(network.preprocessing), len(files) - count
    )  # fmt: skip


class _Moments:
    """Sums over photographs, from which a layer's statistics follow."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: Tensor | None = None  # (4, channels)

    def add(self, output: Tensor) -> None:
        """Add photographs (rows, channels, *positions)."""
        maps = output.detach().float().flatten(2) if output.ndim > 2 else output.detach().float().unsqueeze(2)
        variance, mean = (moment.cpu().double() for moment in torch.var_mean(maps, 2, correction=0))  # (rows, channels)
        sums = torch.stack([mean, mean.square(), variance, variance.sqrt()]).sum(1)
        self.count += len(maps)
        self.sums = sums if self.sums is None else self.sums + sums

    def statistics(self) -> LayerStatistics:
        assert self.sums is not None
        mean, squared, variance, std = self.sums / self.count
        of_means = (squared - mean.square()).clamp_min(0)
        of_stds = (variance - std.square()).clamp_min(0)
        return LayerStatistics(
            mean=mean.float(),
            std=(variance + of_means).sqrt().float(),
            mean_spread=of_means.sqrt().float(),
            std_spread=of_stds.sqrt().float(),
        )


def _batches(files: list[Path], preprocessing: Preprocessing, batch: int) -> Iterator[tuple[int, Tensor | None]]:
    """How many files are done, and the pixels (rows, channels, height, width) of the last readable ones of them."""
    rows: list[Tensor] = []
    for done, pixels in enumerate(_decoded(files, preprocessing), 1):
        if pixels is not None:
            rows.append(pixels)
        if len(rows) == batch or done == len(files):
            yield done, torch.stack(rows) if rows else None
            rows = []


def _fed(preprocessing: Preprocessing) -> dict[str, Any]:
    """A preprocessing's fields as JSON holds them."""
    fed: dict[str, Any] = json.loads(json.dumps(asdict(preprocessing)))
    return fed


def load_activations(path: str | Path, network: Network) -> Activations:
    """What `Activations.save` wrote of this network.

    Raises:
        InputError: there is no such file, it is damaged, it is of another network, or the network was fed otherwise
            (but for the size of images).
    """
    return _load(Path(path), network, network.digest)


def _load(path: Path, network: Network, digest: str) -> Activations:
    found = _read_activations(path)
    if found.weights != digest:
        raise InputError(
            f"statistics {str(path)!r} are of {found.network}, weights {found.weights}, and not of {network.name}, "
            f"weights {digest}: expected what `phosphene statistics DIR -n {network.name}` writes"
        )
    fed = _fed(network.preprocessing)
    other = [name for name in fed if fed[name] != found.fed.get(name) and name in _MATTERS]
    if other:
        name = other[0]
        raise InputError(
            f"statistics {str(path)!r} were gathered with {network.name} fed otherwise ({name} {found.fed.get(name)}, "
            f"and not {fed[name]}): gather them again, with `phosphene statistics DIR`"
        )
    return found


_MATTERS = ("mean", "std", "value_range", "channel_order", "channels", "layout")


def _read_activations(path: Path) -> Activations:
    tensors, metadata = _read(path, _ACTIVATIONS)
    try:
        names, fed = (parse_json(metadata[key], key) for key in ("layers", "fed"))
        if not isinstance(fed, dict) or not isinstance(names, list) or not names:
            raise ValueError("metadata")
        found = Activations(
            metadata["network"],
            metadata["weights"],
            int(metadata["count"]),
            {name: LayerStatistics(*(tensors[f"{kind}/{name}"] for kind in _KINDS)) for name in names},
            fed,
            int(metadata["unreadable"]),
        )
        for name in names:
            _check_layer(found.layers[name])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(path, _ACTIVATIONS) from error
    return found


def _check_layer(layer: LayerStatistics) -> None:
    tensors = [getattr(layer, kind) for kind in _KINDS]
    if any(tensor.ndim != 1 or tensor.shape != tensors[0].shape or tensor.dtype != torch.float32 for tensor in tensors):
        raise ValueError("shapes")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors) or any(
        bool((tensor < 0).any()) for tensor in tensors[1:]
    ):
        raise ValueError("numbers")


def cache_path(network: Network | str) -> Path:
    """Where the statistics of a network, or of that with this digest, are kept.

    In the folder that the environment variable PHOSPHENE_STATISTICS names, or else in phosphene/statistics of the
    user's cache: XDG_CACHE_HOME, or ~/.cache.
    """
    digest = network if isinstance(network, str) else network.digest
    named = os.environ.get("PHOSPHENE_STATISTICS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(named) if named else cache / "phosphene" / "statistics") / f"{digest}.safetensors"


def find_activations(network: Network) -> Activations | None:
    """The statistics of a network that are kept at `cache_path`, if there are.

    Raises:
        InputError: they are damaged, or the network was fed otherwise.
    """
    digest = network.digest
    path = cache_path(digest)
    return _load(path, network, digest) if path.is_file() else None


# Files


def _evenly(files: list[Path], limit: int | None) -> list[Path]:
    count = len(files) if limit is None else min(limit, len(files))
    return [files[index * len(files) // count] for index in range(count)]


def _decoded(files: list[Path], preprocessing: Preprocessing) -> Iterator[Tensor | None]:
    """Each file's pixels (channels, height, width) in 0..255, or None where it is no image or a damaged one."""
    for image in readable(files):
        yield None if image is None else preprocessing.photograph(image)


def _none_readable(files: list[Path]) -> InputError:
    if not files:
        return InputError("no photographs: expected at least one image file")
    return InputError(
        f"none of {len(files)} photographs, such as {str(files[0])!r}, can be read: they are no image files, or "
        "damaged ones"
    )


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _write(path: Path, tensors: dict[str, Tensor], of: str, metadata: dict[str, str]) -> Path:
    """Write beside the place, then move there: the file is never half there."""
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"phosphene": of, **metadata})
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(data)
        os.replace(aside, path)
    except OSError as error:
        raise InputError(f"file {str(path)!r} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            aside.unlink()
    return path


def _read(path: Path, of: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file that `_write` made of such statistics."""
    if not is_file(path):
        raise InputError(f"statistics {str(path)!r}: there is no such file; `{_MADE_BY[of]}` makes one")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no dictionary
    except Exception as error:  # of a library that reads what it does not know
        raise _damaged(path, of) from error
    if metadata.get("phosphene") != of:
        raise InputError(
            f"statistics {str(path)!r} are not of {of}: expected a file that `{_MADE_BY[of]}` wrote"
        )  # fmt: skip
    return tensors, metadata


def _damaged(path: Path, of: str) -> InputError:
    return InputError(
        f"statistics {str(path)!r} cannot be read: they are damaged, or no statistics; `{_MADE_BY[of]}` makes them anew"
    )
