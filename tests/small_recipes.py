"""Short recipes for small networks, and what the tests of ascents ask of what they return."""

import signal

import numpy as np

import phosphene
from phosphene import Recipe

UNITS = ["class:cat", "relu1:2", "mean(relu2:5)", "class:dog - class:cat", "relu2:3@4,6", "conv2", "class:horse"]
FOURIER = {
    "canvas.kind": "fourier", "start.sigma": 4.0, "optimizer.name": "adam", "optimizer.rate": 0.05,
    "optimizer.gradient": "raw", "keep.rule": "last", "clip": "off",
}  # fmt: skip
HELD = {**FOURIER, "canvas.contrast": 0.1, "canvas.spectrum": "held"}
MACO = {**FOURIER, "canvas.kind": "maco", "optimizer.rate": 0.3}
MOVING = {
    "views.crop": [0.5, 1.0], "views.rotate": 10.0, "views.flip": True, "views.noise": [2.0, 4.0], "views.count": 2,
}  # fmt: skip
PULLED = {
    "priors.statistics.weight": 5.0, "priors.total_variation.weight": 1.0, "priors.norm.weight": 1.0,
}  # fmt: skip
GROWING = {"growth.sizes": [0.5, 0.75, 1.0], "growth.at": [0.0, 0.3, 0.6]}
DIVERSE = {"priors.diversity.weight": 10.0, "priors.diversity.layer": "relu2"}
MIXED = ["class:cat", "relu1:2", "class:dog - class:cat", "mean(relu2:3)", "class:horse"]


def quick(steps=12, **fields):
    rate = {"optimizer.gradient": "rms", "optimizer.rate": 6.0}
    return Recipe.load("clip").override(
        {**rate, "steps": steps, **{name.replace("__", "."): fields[name] for name in fields}}
    )


def pixels(result):
    return [picture.pixels for picture in result]


def fourier(**fields):
    return Recipe.load("draft").override(
        {"steps": 10, "start.sigma": 5.0, **{name.replace("__", "."): value for name, value in fields.items()}}
    )


def all_of(*fields, steps=12):
    return quick(steps).override({name: value for each in fields for name, value in each.items()})


def referring(unit, network, image):
    """A unit as it is spelled, referring to a photograph."""
    return phosphene.parse_unit(unit, network).with_photograph(image)


def rising(network, unit, recipe):
    """The objective, as measured on the image, after one step and after all."""
    return [
        phosphene.ascend(network, unit, used)[0].scores["objective"] for used in (recipe.override({"steps": 1}), recipe)
    ]


def pressed_at(work):
    """Presses Ctrl-C once, when so much is done."""
    pressed = []

    def on_progress(progress):
        if progress.work > work and not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)

    return on_progress


def photograph(size=(24, 24), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
