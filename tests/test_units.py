import pytest
import torch

import phosphene
from phosphene import Channel, Class, Direction, InputError, Neuron, Sum, WholeLayer
from phosphene.units.objects import describe
from phosphene.units.spelling import find_classes, parse_indices, parse_unit

ACTIVATION = torch.randn(12, 6, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("class:dog", Class(1)),
        ("class:3", Class(3)),
        ("relu2:7", Channel("relu2", 7)),
        ("sum(relu2:7)", Channel("relu2", 7)),
        ("mean(relu2:7)", Channel("relu2", 7, "mean")),
        ("relu2:7@0,11", Neuron("relu2", 7, (0, 11))),
        ("relu2", WholeLayer("relu2")),
        ("relu1:[1, 0,0,0,0,0,0,-2.5]", Direction("relu1", (1, 0, 0, 0, 0, 0, 0, -2.5))),
        ("class:dog - 0.5*class:sea horse", Sum(((1.0, Class(1)), (-0.5, Class(4))))),
        ("2*relu1:0 + mean(relu2:3)", Sum(((2.0, Channel("relu1", 0)), (1.0, Channel("relu2", 3, "mean"))))),
        ("-class:dog", Sum(((-1.0, Class(1)),))),
    ],
)
def test_units_are_spelled_and_read_back(text, unit, small):
    assert parse_unit(text, small) == unit
    assert parse_unit(str(unit), small) == unit


def test_units_add_subtract_and_scale(small):
    unit = 2 * Class(1) - Channel("relu1", 3) * 0.5 + Class(2)
    assert unit == Sum(((2.0, Class(1)), (-0.5, Channel("relu1", 3)), (1.0, Class(2))))
    assert str(unit) == "2.0*class:1 - 0.5*relu1:3 + class:2"
    assert parse_unit(unit, small) is unit


def test_scores_are_what_the_units_say():
    channel = ACTIVATION[7]
    torch.testing.assert_close(Channel("x", 7).score(ACTIVATION), channel.sum())
    torch.testing.assert_close(Channel("x", 7, "mean").score(ACTIVATION), channel.mean())
    torch.testing.assert_close(Neuron("x", 7, (2, 4)).score(ACTIVATION), channel[2, 4])
    torch.testing.assert_close(WholeLayer("x").score(ACTIVATION), ACTIVATION.square().mean())
    onehot = tuple(float(i == 7) for i in range(12))
    torch.testing.assert_close(Direction("x", onehot).score(ACTIVATION), channel.sum())
    torch.testing.assert_close(Direction("x", onehot, "mean").score(ACTIVATION), channel.mean())
    assert Class(3).score(ACTIVATION[:, 0, 0]) == ACTIVATION[3, 0, 0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("class:cow", "no class is called 'cow'"),
        ("class:9", "class 9: expected an index of 0 to 4"),
        ("relu3:1", "has no layer 'relu3'; did you mean relu2 or relu1"),
        ("relu2:12", "channel 12 of relu2: it has 12 channels, 0 to 11"),
        ("relu2:1@12,0", "outside of the map of relu2, which is 12x12"),
        ("relu2:1@3", r"the maps of relu2 have 2 axes \(12x12\)"),
        ("relu2:[1,2]", "a direction of 2 weights: relu2 has 12 channels"),
        ("relu2:[1,x]", "expected numbers between the brackets"),
        ("relu2:x", "expected class:NAME, LAYER:CHANNEL"),
    ],
)
def test_units_that_are_not_there_are_refused(text, sentence, small):
    with pytest.raises(InputError, match=sentence):
        parse_unit(text, small)


def test_labels_must_be_as_many_as_the_outputs(small):
    small.labels = phosphene.Labels(["cat", "dog"])
    with pytest.raises(InputError, match="2 labels for the 5 outputs of small"):
        parse_unit("class:dog", small)


def test_classes_are_described_by_name(small):
    assert describe(Class(4), small) == "sea horse"
    assert describe(Channel("relu1", 2), small) == "relu1:2"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("relu2:-1", "channels count from 0, and the last is 11: expected relu2:11"),
        ("relu2:*", "`phosphene filters relu2` shows all 12"),
        ("relu2[3]", "expected relu2:3"),
        ("[relu2]:3", "calls this layer 'relu2': expected relu2:3"),
        ("model.relu2:3", "calls this layer 'relu2': expected relu2:3"),
        ("relu2:0:3", "expected `phosphene filters relu2:0-2`"),
        ("relu2:1e3", "a channel that is a whole number: relu2 has 12 channels, 0 to 11"),
        ("mean(relu2:0-3)", "`phosphene filters relu2:0-3` shows several"),
        ("relu2:", "expected a channel after the colon, such as relu2:0"),
        (":3", "names no layer: expected one"),
        ("", "names no layer: expected one"),
        ("relu2:3,", "expected relu2:3"),
        ("relu2:3@-1,0", "of whole numbers from 0, such as relu2:0@0,0"),
        ("relu2:\u0663", "expected the digits 0 to 9: relu2:3"),
        ("relu2:\u00b2", "expected the digits 0 to 9: relu2:2"),
        ("relu2:" + "9" * 5000, "it has 12 channels, 0 to 11"),
        ("class:" + "9" * 5000, "expected an index of 0 to 4"),
        ("class:\u0663", "expected an index of 0 to 4"),
        ("relu2:2 - ", "expected something on both sides"),
        ("nan*relu2:2", r"'nan' before a \*: expected a number other than 0"),
        ("0*relu2:2", r"'0' before a \*: expected a number other than 0"),
        ("1e400*relu2:2", r"'1e400' before a \*: expected a number other than 0, finite"),
        ("relu2:2*0.5", r"such as 0.5\*relu2:2"),
        ("*relu2:2", "'' before a *"),
        ("relu2:2 - relu2:2", "nothing is left"),
        ("relu2:[1,nan,0,0,0,0,0,0,0,0,0,0]", "weight 1 is nan: expected numbers that are finite"),
        ("relu2:[0,0,0,0,0,0,0,0,0,0,0,0]", "a direction of zeros"),
    ],
)
def test_other_spellings_are_refused_with_the_nearest_right_one(text, sentence, small):
    with pytest.raises(InputError, match=sentence):
        parse_unit(text, small)


@pytest.mark.parametrize(
    "make",
    [
        lambda unit: 0 * unit,
        lambda unit: unit * float("nan"),
        lambda unit: unit * float("inf"),
        lambda unit: unit * 1e39,  # infinite in 32 bits
        lambda unit: unit - unit,
        lambda unit: Sum(((0.0, unit),)),
        lambda unit: Sum(()),
        lambda unit: Direction("relu1", [0.0] * 8),
        lambda unit: Direction("relu1", [1.0] * 7 + [float("nan")]),
        lambda unit: Direction("relu1", [float("-inf")] * 8),
    ],
)
def test_units_that_are_no_number_or_nothing_are_refused(make):
    with pytest.raises(InputError, match="expected"):
        make(Channel("relu1", 3))


def test_a_minus_may_stand_apart(small):
    assert parse_unit("- relu2:3", small) == parse_unit("-relu2:3", small) == -Channel("relu2", 3)


def test_lists_are_checked_before_they_are_built():
    assert parse_indices("0-2,5", 8, "channel {}") == [0, 1, 2, 5]
    for text in ("0:2", "1-2-3", "\u0663", "", "1,"):
        assert parse_indices(text, 8, "channel {}") is None
    for text, sentence in (
        ("0-3000000000", "channel 3000000000: it has 8 channels, 0 to 7"),
        ("0-" + "9" * 5000, "0 to 7"),
        ("7-3", "a range that rises, such as 3-7"),
    ):
        with pytest.raises(InputError, match=sentence):
            parse_indices(text, 8, "channel {}")


def test_classes_may_be_a_range(small):
    assert find_classes("0-3", small) == [0, 1, 2, 3]
    assert find_classes("dog", small) == [1]
    with pytest.raises(InputError, match="class 3000000000: expected 0 to 4"):
        find_classes("0-3000000000", small)
