"""The parts of the page where a recipe is picked, and changed, also while the image forms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from nicegui import ui
from nicegui.elements.mixins.value_element import ValueElement

from phosphene import defaults
from phosphene.errors import InputError
from phosphene.recipes.recipe import Recipe
from phosphene.studio.controls import Control, controls, listed_recipes, switches
from phosphene.studio.elements import heading
from phosphene.units.objects import Channel, Class

MAX_SEED = 2**31


class RecipePart:
    """Which recipe, and the seed.

    Args:
        on_load: called when the recipe is to be as it ships.
    """

    def __init__(self, on_load: Callable[[], None]):
        heading("3. How")
        with ui.element("div").classes("line"):
            self.name = ui.select(list(listed_recipes()), value="natural", label="Recipe")
            self.name.on_value_change(on_load)
            self.reset = ui.button(icon="restart_alt", on_click=on_load, color=None)
            self.reset.classes("quiet").props('flat round aria-label="the recipe as it ships"').tooltip("as it ships")
        self.description = ui.label("").classes("hint")
        with ui.element("div").classes("line"):
            self.seed_number = ui.number("Seed", value=defaults.SEED, min=0, max=MAX_SEED, step=1, precision=0)
        self.inputs: dict[str, ValueElement[Any]] = {"recipe": self.name, "seed": self.seed_number}

    def offer(self, images: bool, folders: bool) -> None:
        """Offer the recipes for which there is what they need: photographs, or folders of them."""
        names = list(listed_recipes(images, folders))
        self.name.set_options(names, value=self.name.value if self.name.value in names else "natural")

    def set_enabled(self, enabled: bool) -> None:
        self.name.set_enabled(enabled)
        self.reset.set_enabled(enabled)

    def seed(self) -> int:
        """The seed.

        Raises:
            InputError: what stands there is none.
        """
        value = self.seed_number.value or 0
        if isinstance(value, int | float) and 0 <= value <= MAX_SEED and float(value).is_integer():
            return int(value)
        raise InputError(f"seed {self.seed_number.value}: expected a whole number of 0 to {MAX_SEED}")


class ControlsPart:
    """The controls of the recipe's fields.

    Args:
        on_change: called with a field and its value; returns what is wrong with that, if anything.
    """

    def __init__(self, on_change: Callable[[str, Any], str]):
        self.on_change = on_change
        heading("Strengths")
        ui.label("They may be changed while the image forms.").classes("hint")
        self.part = ui.element("div").classes("controls")

    def fill(self, recipe: Recipe, of_class: bool, on_switch: Callable[[str, bool], None]) -> None:
        """Have the controls of a recipe, as it is for a class or a channel."""
        self.part.clear()
        with self.part:
            settled = recipe.for_unit(Class(0) if of_class else Channel("", 0))
            for control in controls(settled):
                _slider(control, self.on_change)
            for name, on in switches(settled):
                ui.switch(f"{name.replace('_', ' ')}", value=on).on_value_change(
                    partial(lambda name, event: on_switch(name, event.value), name)
                )


def _slider(control: Control, on_change: Callable[[str, Any], str]) -> None:
    """A slider and a number for a field; either follows the other, and what is wrong with it is said below."""

    def validate(value: Any) -> str | None:
        wrong = on_change(control.field, value)
        if not wrong:
            slider.set_value(control.place(value))
        return wrong or None

    def on_slide(event: Any) -> None:
        if event.args is not None:
            number.set_value(control.at(float(event.args)))

    with ui.element("div").classes("control"):
        number = ui.number(control.words, value=float(f"{control.value:.6g}"), validation=validate)
        number.props("debounce=300 step=any hide-bottom-space").tooltip(control.help)
        slider = ui.slider(min=control.low, max=control.high, step=control.by, value=control.place(control.value))
        slider.props(f'aria-label="{control.words}"').on("update:model-value", on_slide, throttle=0.15)
