"""What is written, spelled or parametrized comes back as it was, whatever it is."""

import io
import json

import numpy as np
import pytest
import torch
from helpers import Small, opened, seeded
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from phosphene import InputError, Preprocessing, Recipe, png
from phosphene.ascent.canvas import make_canvas
from phosphene.planes import to_pil
from phosphene.provenance.pixels import decode_pixels, encode_pixels
from phosphene.units.objects import Caricature, Channel, Class, Direction, Match, Neuron, Sum, WholeLayer
from phosphene.units.spelling import parse_unit

NETWORK = opened(seeded(Small))
SIDE = st.integers(1, 40)


def image_of(shape, seed):
    """(channels, height, width) in 0..255, whole numbers."""
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).float()


def through(canvas, image):
    """Pixels to parameters to pixels."""
    return canvas.to_images(canvas.initial_parameters(torch.Generator(), image)[None])[0]


@pytest.mark.slow
@given(height=SIDE, width=SIDE, channels=st.integers(1, 4), seed=st.integers(0, 99), exponent=st.floats(0, 2))
def test_pixels_are_the_same_through_a_fourier_canvas(height, width, channels, seed, exponent):
    recipe = Recipe.load("naive").override({"canvas.kind": "fourier", "canvas.exponent": exponent})
    image = image_of((channels, height, width), seed)
    made = through(make_canvas(recipe, Preprocessing(24, channels=channels), (height, width)), image)
    inner = (image > 0) & (image < 255)  # black and white are out of the sigmoid's reach
    assert (made - image).abs().max() < 0.7
    assert torch.equal(made.round()[inner], image[inner])


@given(height=SIDE, width=SIDE, channels=st.integers(1, 4), seed=st.integers(0, 99))
def test_pixels_are_the_same_through_a_canvas_of_pixels(height, width, channels, seed):
    recipe = Recipe.load("naive").override({"start.kind": "image"})
    image = image_of((channels, height, width), seed)
    canvas = make_canvas(recipe, Preprocessing(24, channels=channels), (height, width))
    assert torch.equal(through(canvas, image), image)


@given(height=st.integers(8, 40), width=st.integers(8, 40), seed=st.integers(0, 99))
def test_the_phases_of_an_image_of_phases_are_its_own(height, width, seed):
    recipe = Recipe.load("naive").override({"canvas.kind": "maco"})
    canvas = make_canvas(recipe, Preprocessing(24), (height, width))
    first = through(canvas, image_of((3, height, width), seed))
    torch.testing.assert_close(through(canvas, first), first, atol=0.5, rtol=0)


NUMBER = st.floats(1e-6, 1e6)
SHARE = st.floats(0.01, 1)


def rising(numbers):
    return st.tuples(numbers, numbers).map(sorted).map(list)


FIELDS = {
    "description": st.text(max_size=40),
    "steps": st.integers(1, 10**6),
    "size": st.lists(st.integers(1, 2000), min_size=2, max_size=2),
    "optimizer.rate": NUMBER,
    "optimizer.gradient": st.sampled_from(["raw", "l2", "rms", "planes"]),
    "start.sigma": st.floats(0, 100),
    "schedule.kind": st.sampled_from(["constant", "linear", "cosine", "step"]),
    "median.size": st.sampled_from([3, 5, 7]),
    "median.every": st.integers(1, 100),
    "blur.sigma": st.floats(0.1, 9),
    "decay.strength": SHARE,
    "clip": st.just("off"),
    "views.crop": rising(SHARE),
    "views.scale": rising(st.floats(0.1, 4)),
    "views.noise": rising(st.floats(0, 255)),
    "views.flip": st.booleans(),
    "views.count": st.integers(1, 8),
    "priors.statistics.weight": NUMBER,
    "priors.total_variation.weight": NUMBER,
    "priors.diversity": st.fixed_dictionaries({"weight": NUMBER, "layer": st.text(max_size=20)}),
    "stop.confidence": st.floats(0, 0.99),
    "networks": st.dictionaries(
        st.text(min_size=1, max_size=12), st.fixed_dictionaries({"optimizer.rate": NUMBER}), max_size=3
    ),
    "hidden": st.fixed_dictionaries({"steps": st.integers(1, 99)}),
}


@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_a_recipe_is_the_same_through_toml_and_json(fields):
    recipe = Recipe.load("clip").override(fields)
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


CHANNELS = {"relu1": (8, 24), "relu2": (12, 12)}  # of each layer: how many, and the side of its maps
WEIGHT = st.floats(-1e6, 1e6).filter(lambda weight: abs(weight) > 1e-6)


@st.composite
def parts(draw):
    layer = draw(st.sampled_from(sorted(CHANNELS)))
    count, side = CHANNELS[layer]
    channel, reduce = draw(st.integers(0, count - 1)), draw(st.sampled_from(["sum", "mean"]))
    position = tuple(draw(st.tuples(*[st.integers(0, side - 1)] * 2)))
    weights = tuple(draw(st.lists(WEIGHT, min_size=count, max_size=count)))
    return draw(
        st.sampled_from(
            [
                Class(channel % 5),
                Channel(layer, channel, reduce),
                Neuron(layer, channel, position),
                WholeLayer(layer),
                Direction(layer, weights, reduce),
                Match(layer),
                Caricature(layer),
            ]
        )
    )


@given(parts())
def test_a_unit_is_the_same_through_its_spelling(unit):
    assert parse_unit(str(unit), NETWORK) == unit


@given(st.lists(st.tuples(WEIGHT, parts()), min_size=2, max_size=4))
def test_a_sum_is_the_same_through_its_spelling(terms):
    try:
        unit = Sum(tuple(terms))
    except InputError:  # nothing is left of it
        assume(False)
    assert parse_unit(str(unit), NETWORK) == unit


PIXELS = st.builds(
    lambda shape, seed: np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8),
    st.tuples(SIDE, SIDE, st.integers(1, 5)),
    st.integers(0, 99),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(PIXELS)
def test_an_image_is_the_same_through_a_text(pixels):
    assert np.array_equal(decode_pixels(encode_pixels(pixels)), pixels)


@given(PIXELS, st.dictionaries(st.text(), JSON, max_size=4))
def test_a_provenance_is_the_same_through_a_png_and_so_are_its_pixels(pixels, known):
    info, file = PngInfo(), io.BytesIO()
    info.add_text("Title", "kept")
    info.add_itxt(png.KEY, "{}")
    shown = to_pil(pixels)
    shown.save(file, "PNG", pnginfo=info)
    with Image.open(io.BytesIO(png.with_provenance(file.getvalue(), known))) as image:
        assert np.array_equal(np.asarray(image), np.asarray(shown))
        assert image.text["Title"] == "kept"
        assert json.loads(image.text[png.KEY]) == known
