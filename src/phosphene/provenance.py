"""How an image was made, as its own file says it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Len
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints, ValidationError, model_validator

from phosphene.errors import InputError, printable
from phosphene.images import open_image
from phosphene.png import KEY
from phosphene.recipes.recipe import Recipe

if TYPE_CHECKING:
    from phosphene.networks.network import Network

_Text = Annotated[str, StringConstraints(max_length=500)]
_Word = Annotated[str, StringConstraints(max_length=64, pattern=r"^[\w.:+-]*$")]
_LARGEST_TEXT = 64 << 20  # characters: the start image and the photograph are in it


_FUNCTIONS = ("functions", "canvas_function")  # fields of a recipe that have names alone in a file


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class PreprocessingRecord(_Record):
    """How a network was fed: the fields of its `Preprocessing`."""

    size: Annotated[list[Annotated[int, Field(ge=1, le=16384)]], Len(2, 2)]
    mean: Annotated[list[float], Len(1, 4096)]
    std: Annotated[list[float], Len(1, 4096)]
    value_range: Annotated[list[float], Len(2, 2)] = [0.0, 1.0]
    channel_order: Literal["RGB", "BGR"] = "RGB"
    channels: int = Field(3, ge=1, le=4096)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    interpolation: _Word = "bicubic"
    crop: float = 1.0
    resize: _Word = "shorter"
    fixed_size: bool = False


class NetworkRecord(_Record):
    """A network that an image was made with; what of `source` is followed, `networks.named` decides."""

    name: _Text
    source: Annotated[dict[_Word, str | bool | int | float | list[str | int | float]], Len(0, 10)] | None
    weights: _Word
    input: PreprocessingRecord

    @property
    def preprocessing_fields(self) -> dict[str, Any]:
        """The fields of the `Preprocessing`."""
        return self.input.model_dump()


class SelectionRecord(_Record):
    """By whom an image was chosen among several."""

    model_config = ConfigDict(extra="allow")

    by: Annotated[list[_Text], Len(0, 100)] = []


class JudgementRecord(_Record):
    top1: bool | float  # of one judge whether, of several how often
    top5: bool | float
    probability: float | None


class SelectivityRecord(_Record):
    model_config = ConfigDict(extra="allow")

    rank: int
    of: int
    rank_by_z: int | None = None


class NearestRecord(_Record):
    photograph: _Text
    judge: _Text
    distance: float | None


class Scores(_Record):
    """What was measured of an image; numbers of other names are kept as they are."""

    model_config = ConfigDict(extra="allow")

    judges: Annotated[dict[_Text, JudgementRecord], Len(0, 100)] = {}
    judged: JudgementRecord | None = None
    tuned: Annotated[list[_Text], Len(0, 100)] = []
    robustness_rule: _Text = ""
    selectivity: SelectivityRecord | None = None
    nearest: NearestRecord | None = None
    chosen: SelectionRecord = SelectionRecord()

    @property
    def numbers(self) -> dict[str, float]:
        """The scores that are one number each, by name."""
        given = self.model_dump(exclude_unset=True)
        return {
            key: value for key, value in given.items() if isinstance(value, int | float) and not isinstance(value, bool)
        }


class Provenance(_Record):
    """What an image made by phosphene says of itself, within bounds."""

    unit: Annotated[str, StringConstraints(max_length=1_000_000)]  # a direction has a number for each channel
    label: Annotated[str, StringConstraints(max_length=1_000_000)]
    seed: int = Field(ge=0, lt=2**63)
    recipe: dict[str, Any]
    network: NetworkRecord
    steps: int = Field(ge=0, le=1_000_000)
    stopped: _Text
    batches: Annotated[
        list[tuple[Annotated[int, Field(ge=1, le=65536)], Annotated[int, Field(ge=1, le=1_000_000)]]], Len(0, 100_000)
    ]
    scores: Scores
    device: _Word
    threads: int = Field(ge=1, le=1024)
    precision: Annotated[list[Literal["fp32", "bf16", "fp64"]], Len(1, 64)] = ["fp32"]
    versions: Annotated[dict[_Text, _Text], Len(0, 50)] = {}
    start: str | None = None
    photograph: str | None = None
    ensemble: Annotated[list[NetworkRecord], Len(0, 32)] = []
    facet: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1, le=1024)]] = (0, 1)
    statistics: Annotated[list[_Text], Len(0, 64)] = []
    changes: Annotated[list[tuple[int, _Text, Any]], Len(0, 100_000)] = []

    _text: str = PrivateAttr("{}")

    @model_validator(mode="after")
    def _consistent(self) -> Provenance:
        if self.facet[0] >= self.facet[1]:
            raise ValueError(f"facet {self.facet[0]} of {self.facet[1]}")
        if sum(steps for _, steps in self.batches) > 1_000_000:
            raise ValueError("batches of over a million steps")
        return self

    def to_dict(self) -> dict[str, Any]:
        """As plain data, in the order of the file: the fields of this class alone."""
        return {name: value for name, value in json.loads(self._text).items() if name in type(self).model_fields}

    @property
    def functions(self) -> list[str]:
        """The names of the caller's own functions that the image was made by, which no file holds."""
        values = [self.recipe[name] for name in _FUNCTIONS if name in self.recipe]
        return [str(each) for value in values for each in (value if isinstance(value, list) else [value])]

    def settings(self, origin: str = "the image's recipe", trust: bool = False, functions: bool = True) -> Recipe:
        """The recipe.

        Args:
            functions: whether it is to have the functions that changed the image, of which a file holds only the names.

        Raises:
            InputError: it is none, names a file that is not to be followed, or is to have functions that it had.
        """
        try:
            recipe = Recipe.from_dict(
                {name: self.recipe[name] for name in self.recipe if functions or name not in _FUNCTIONS}
            )
        except InputError as error:
            raise InputError(f"{origin}: {error}") from None
        if not trust:
            from phosphene.ascent.canvas import check_referenced_files  # imports torch, which `show` does without

            check_referenced_files(recipe, origin)
        return recipe


def read_provenance(path: str | Path) -> dict[str, Any]:
    """What a PNG made by phosphene says of itself.

    Returns:
        A dictionary with "unit", "label", "seed", "recipe", "network", "steps", "stopped", "batches", "scores",
        "device", "threads", "precision", "versions" and, where the ascent started from a given image, "start", and
        where its recipe was changed on the way, "changes".

    Raises:
        InputError: there is no such file, it is no image, it carries nothing of phosphene's, or what it carries is
            damaged.
    """
    return read(path).to_dict()


def read(path: str | Path) -> Provenance:
    """As `read_provenance`, checked, and as an object."""
    return _read(Path(path))[0]


def load(path: str | Path) -> tuple[Image.Image, Provenance | None]:
    """An image file, and its provenance, or None where it carries nothing of phosphene's.

    Raises:
        InputError: there is no such file, it is no image, or its provenance is damaged.
    """
    path = Path(path)
    opened = open_image(path)
    image, text = opened.image, opened.text.get(KEY)
    if text is None:
        return image, None
    try:
        provenance = parse_provenance(text)
        _check_sizes(provenance, image)
        return image, provenance
    except ValueError as error:
        why = f" ({error})" if isinstance(error, InputError) else ""
        raise InputError(f"what image {str(path)!r} says of itself is damaged{why}") from None


def parse_provenance(text: str) -> Provenance:
    """A provenance from the text that a PNG carries under `KEY`.

    Raises:
        InputError: it is none, or a field is out of its bounds; the text names the field.
    """
    if len(text) > _LARGEST_TEXT:
        raise InputError(f"its text has {len(text)} characters: expected at most {_LARGEST_TEXT}")
    try:
        found = Provenance.model_validate_json(text)
        found._text = text
        return found
    except ValidationError as errors:
        first = errors.errors(include_url=False, include_input=False, include_context=False)[0]
        raise InputError(f"{'.'.join(map(str, first['loc'])) or 'text'}: {first['msg']}") from None


def _check_sizes(provenance: Provenance, image: Image.Image) -> None:
    """Raise an `InputError` where sizes that an image tells of are not its own, so that nothing larger is made."""
    size = provenance.recipe.get("size")
    planes = provenance.network.input.channels
    height, width = image.height, _width(image, provenance.network)
    if size is not None and list(size if isinstance(size, list) else [size, size]) != [height, width]:
        raise InputError(f"recipe.size {printable(size)}: the image has {height}x{width} pixels")
    most = 2 * height * width * planes + 4096  # of noise, which does not compress, in base64
    for name in ("start", "photograph"):
        if len(getattr(provenance, name) or "") > most:
            raise InputError(f"{name} is larger than the image")


def _width(image: Image.Image, network: NetworkRecord) -> int:
    """Of what was made: two or more than four channels stand side by side in the file."""
    planes = network.input.channels
    return image.width // planes if planes == 2 or planes > 4 else image.width


def _read(path: Path) -> tuple[Provenance, Image.Image]:
    image, provenance = load(path)
    if provenance is None:
        raise InputError(
            f"image {str(path)!r} does not say how it was made: expected a PNG that phosphene wrote, unchanged"
        )
    return provenance, image


def _pixel_scaling(preprocessing: dict[str, Any]) -> dict[str, Any]:
    """What decides how pixels are fed, but for the size, which the recipe may change; as JSON holds it."""
    names = ("mean", "std", "value_range", "channel_order", "channels", "layout")
    return {name: json.loads(json.dumps(preprocessing[name])) for name in names}


def open_recorded_network(
    path: str | Path, known: NetworkRecord, network: Network | None, call: str, trust: bool = False
) -> Network:
    """A network that an image was made with: the one given, or the one that the image names, as far as it is data.

    Args:
        path: of the image.
        known: what its provenance says of the network.
        network: the caller's, or None.
        call: what to call with a network of one's own, for the message.
        trust: follow whatever the image says (see `networks.named`).

    Raises:
        InputError: it is another network, is fed otherwise, or is not opened by what the image says.
    """
    if network is None:
        from phosphene.networks.named import open_referenced

        instead = f"open it and call {call}" if known.source is None else "give the network yourself (-n NETWORK)"
        network = open_referenced(
            f"image {str(path)!r}",
            known.name,
            known.source,
            known.weights,
            known.preprocessing_fields,
            trust=trust,
            instead=instead,
        )
    _check_same(path, known, network)
    return network


def _check_same(path: str | Path, known: NetworkRecord, network: Network) -> None:
    """Raise an `InputError` unless the network is the one that the image names."""
    if network.digest != known.weights:
        raise InputError(
            f"image {str(path)!r} was made with {printable(known.name)} of weights {known.weights}, and these "
            f"({network.name}) are {network.digest}"
        )
    fed, feeds = _pixel_scaling(known.preprocessing_fields), _pixel_scaling(asdict(network.preprocessing))
    if fed != feeds:
        name = next(key for key in feeds if fed.get(key) != feeds[key])
        raise InputError(
            f"image {str(path)!r} was made with a network fed otherwise: {name} {fed.get(name)}, and here {feeds[name]}"
        )


def check_size(path: str | Path, known: NetworkRecord, network: Network, image: Image.Image) -> None:
    """Raise an `InputError` where an image without a size in its recipe is not as large as its network is fed."""
    size = tuple(known.input.size)
    if size != network.preprocessing.size and size != (image.height, _width(image, known)):
        raise InputError(f"image {str(path)!r} tells of {size[0]}x{size[1]} pixels, and has other ones: it is damaged")
