"""What an image made by phosphene says of itself, checked and within bounds."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Len
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from phosphene.errors import InputError
from phosphene.recipes.recipe import Recipe

if TYPE_CHECKING:
    from phosphene.networks.network import Network

_Text = Annotated[str, StringConstraints(max_length=500)]
_Word = Annotated[str, StringConstraints(max_length=64, pattern=r"^[\w.:+-]*$")]
_LARGEST_TEXT = 64 << 20  # characters: the start image and the photograph are in it


_OLDER_REASONS = {"confidence held": "probability held"}
_FUNCTIONS = ("functions", "canvas_function")  # fields of a recipe that have names alone in a file


def current_reason(stopped: str) -> str:
    """Why an image stopped, in the words of this version: a file may have those of an older one."""
    return _OLDER_REASONS.get(stopped, stopped)


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class PreprocessingRecord(_Record):
    """How a network's input was made: the fields of its `Preprocessing`."""

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
    """A network that an image was made with, as its picture and its file know it: no weights, but their digest.

    Attributes:
        name: what it was called.
        source: the arguments by which `phosphene.open` opens it again, None where it cannot; what of them is followed
            where a file says them, `networks.named` decides.
        weights: their digest.
        input: its preprocessing.
    """

    name: _Text
    source: Annotated[dict[_Word, str | bool | int | float | list[str | int | float]], Len(0, 10)] | None
    weights: _Word
    input: PreprocessingRecord

    @property
    def preprocessing_fields(self) -> dict[str, Any]:
        """The fields of the `Preprocessing`."""
        return self.input.model_dump()

    @classmethod
    def of(cls, network: Network) -> NetworkRecord:
        """The record of a network that is here."""
        fields: dict[str, Any] = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(network.preprocessing).items()
        }
        # Not checked: the bounds are those of what a file says.
        return cls.model_construct(
            name=network.name,
            source=None if network.source is None else dict(network.source),
            weights=network.digest,
            input=PreprocessingRecord.model_construct(**fields),
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data, in the order of the file."""
        return {**dict(self), "input": dict(self.input)}


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


class ExplanationScoreRecord(_Record):
    """A share of trials, and its standard error, of a judge or of several."""

    model_config = ConfigDict(extra="allow")

    score: float | None = None
    error: float | None = None


class ExplanationRecord(ExplanationScoreRecord):
    """How well a picture explains its unit."""

    missing: _Text = ""
    judges: Annotated[dict[_Text, ExplanationScoreRecord], Len(0, 100)] = {}
    together: ExplanationScoreRecord | None = None
    both_sides: ExplanationScoreRecord | None = None
    best_photograph: ExplanationScoreRecord | None = None
    nine_photographs: ExplanationScoreRecord | None = None
    photographs: int | None = None
    other_units: int | None = None


class UnitScoresRecord(_Record):
    judge: _Text
    depth: _Text = ""
    clarity: float | None = None
    redundancy: float | None = None
    polysemanticity: float | None = None
    monosemanticity: float | None = None
    mis: ExplanationScoreRecord | None = None


class PathRecord(_Record):
    mean: float
    layers: Annotated[dict[_Text, float], Len(0, 100)] = {}


class Scores(_Record):
    """What was measured of an image; numbers of other names are kept as they are."""

    model_config = ConfigDict(extra="allow")

    judges: Annotated[dict[_Text, JudgementRecord], Len(0, 100)] = {}
    judged: JudgementRecord | None = None
    tuned: Annotated[list[_Text], Len(0, 100)] = []
    robustness_rule: _Text = ""
    selectivity: SelectivityRecord | None = None
    nearest: NearestRecord | None = None
    explanation: ExplanationRecord | None = None
    unit_scores: UnitScoresRecord | None = None
    path_similarity: PathRecord | None = None
    chosen: SelectionRecord = SelectionRecord()

    @property
    def numbers(self) -> dict[str, float]:
        """The scores that are one number each, by name."""
        given = self.model_dump(exclude_unset=True)
        return {
            key: value for key, value in given.items() if isinstance(value, int | float) and not isinstance(value, bool)
        }


class VectorRecord(_Record):
    """A direction, or a latent's part of an encoder, whose spelling is a name alone.

    Attributes:
        values: the numbers, in base64.
        bias, normalization, kind, threshold, k: of a latent (see `dictionaries.encoder.EncoderRow`).
    """

    values: Annotated[str, StringConstraints(max_length=6 << 20)]
    bias: float = 0.0
    normalization: _Word = "none"
    kind: _Word = "relu"
    threshold: float = 0.0
    k: int = Field(0, ge=0, le=1 << 22)


class Provenance(_Record):
    """What an image made by phosphene says of itself, within bounds."""

    unit: Annotated[str, StringConstraints(max_length=1_000_000)]  # a direction has a number for each channel
    label: Annotated[str, StringConstraints(max_length=1_000_000)]
    seed: int = Field(ge=0, lt=2**63)
    recipe: dict[str, Any]
    network: NetworkRecord
    steps: int = Field(ge=0, le=1_000_000)
    stopped: Annotated[_Text, AfterValidator(current_reason)]
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
    weights: Annotated[list[Annotated[float, Field(ge=-1e6, le=1e6)]], Len(0, 33)] = []
    facet: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1, le=1024)]] = (0, 1)
    statistics: Annotated[list[_Text], Len(0, 64)] = []
    changes: Annotated[list[tuple[int, _Text, Any]], Len(0, 100_000)] = []
    vectors: Annotated[dict[_Text, VectorRecord], Len(0, 64)] = {}

    _text: str = PrivateAttr("{}")

    @model_validator(mode="after")
    def _consistent(self) -> Provenance:
        if self.facet[0] >= self.facet[1]:
            raise ValueError(f"facet {self.facet[0]} of {self.facet[1]}")
        if len(self.weights) not in (0, 1 + len(self.ensemble)):
            raise ValueError(f"{len(self.weights)} weights of {1 + len(self.ensemble)} networks")
        if sum(steps for _, steps in self.batches) > 1_000_000:
            raise ValueError("batches of over a million steps")
        return self

    def to_dict(self) -> dict[str, Any]:
        """As plain data, in the order of the file: the fields of this class alone."""
        return {name: value for name, value in json.loads(self._text).items() if name in type(self).model_fields}

    @property
    def held(self) -> dict[str, dict[str, Any]]:
        """The numbers of directions and latents that the unit's spelling names, by name."""
        return {name: vector.model_dump(exclude_unset=True) for name, vector in self.vectors.items()}

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
