import pytest
import torch
from pydantic import ValidationError

from phosphene import InputError, Recipe
from phosphene.recipe import fields, find_optimizer, recipe_names, toml_value


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_round_trip(name):
    recipe = Recipe.load(name)
    assert recipe.name == name
    assert recipe.description
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_the_posts_and_the_papers_recipes_ship():
    expected = {"naive", "clip", "decay", "blur", "median", "tence", "chollet"} | {f"yosinski-{x}" for x in "abcd"}
    assert expected <= set(recipe_names())


def test_a_recipe_is_frozen():
    with pytest.raises(ValidationError):
        Recipe.load("tence").steps = 3


def test_every_field_round_trips_when_changed():
    recipe = Recipe.load("naive").changed(
        {
            "size": [96, 128],
            "optimizer.options": {"momentum": 0.5},
            "schedule.kind": "cosine",
            "stop.confidence": 0.9,
            "total_variation.strength": 2,
            "order": ["total_variation", "clip"],
            "keep.rule": "best",
            "networks": {"vgg16": {"optimizer.rate": 3.0}},
        }
    )
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_naming_a_field_of_a_regularizer_turns_it_on_and_off_turns_it_off():
    recipe = Recipe.load("clip").changed({"median.size": 3})
    assert [name for name, _ in recipe.regularizers] == ["clip", "median"]
    assert recipe.median.size == 3
    assert [name for name, _ in recipe.changed({"clip": "off"}).regularizers] == ["median"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"median.sise": 3}, r"no field 'median.sise'; did you mean median.size"),
        ({"stepz": 3}, r"no field 'stepz'; did you mean steps"),
        ({"median.size": 4}, r"median.size = 4: expected 3, 5 or 7"),
        ({"optimizer.rate": -1}, r"optimizer.rate = -1: expected above 0"),
        ({"optimizer.rate": float("nan")}, r"optimizer.rate = nan"),
        ({"steps": 0}, r"steps = 0: expected at least 1"),
        ({"steps": "many"}, r"steps = 'many'"),
        ({"decay.strength": 2}, r"decay.strength = 2: expected above 0 and at most 1"),
        ({"schedule.kind": "cosin"}, r"schedule.kind = 'cosin': expected constant, linear, cosine, step or progress"),
        ({"optimizer.name": "adm"}, r"no optimiser is called 'adm'; did you mean Adam"),
        ({"optimizer.name": "LBFGS"}, r"LBFGS does not fit here"),
        ({"optimizer.options.beta": 3}, r"SGD has no option 'beta'"),
        ({"order": ["clip", "clip", "median"]}, r"names a regularizer twice: clip"),
        ({"order": ["clip"]}, r"order leaves out median"),
        ({"start.low": 200, "start.high": 100}, r"low 200.0 is above high 100.0"),
        ({"optimizer.name": "adam", "schedule.kind": "progress"}, r"expected optimizer.name classic"),
        ({"size": 0}, r"expected 1 to 16384"),
        ({"steps.more": 1}, r"no field 'steps.more'"),
        ({"networks": {"vgg16": {"optimizer.rat": 3}}}, r"in networks.vgg16: .*did you mean optimizer.rate"),
        ({"networks": 3}, r"networks = 3"),
        ({"networks.vgg16": 3}, r"networks.vgg16 = 3"),
        ({"networks": {"vgg16": {"steps": 0}}}, r"in networks.vgg16: .*steps = 0: expected at least 1"),
    ],
)
def test_bad_fields_are_refused_by_name_with_what_is_allowed(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        Recipe.load("tence").changed(fields)


def test_bad_recipes_are_refused(tmp_path):
    with pytest.raises(InputError, match="no recipe is called 'tense'; did you mean tence"):
        Recipe.load("tense")
    file = tmp_path / "mine.toml"
    with pytest.raises(InputError, match="cannot be read"):
        Recipe.load(file)
    file.write_text("steps = [")
    with pytest.raises(InputError, match="is no TOML"):
        Recipe.load(file)
    file.write_text("name = 'mine'")
    with pytest.raises(InputError, match="steps is missing"):
        Recipe.load(file)
    file.write_text("steps = 5\n[optimizer]\nrate = 2\n")
    assert Recipe.load(file).steps == 5


def test_what_was_found_for_a_network_is_put_in_unless_set_by_hand():
    recipe = Recipe.load("naive").changed(
        {"networks": {"vgg16": {"optimizer.rate": 3.0, "steps": 7}, "other": {"optimizer.rate": 4.0}}}
    )
    assert recipe.for_network("vgg16").optimizer.rate == 3
    assert recipe.for_network("alexnet").optimizer.rate == 4
    assert recipe.for_network("vgg16").networks == {}
    assert recipe.changed({"optimizer.rate": 9.0}).for_network("vgg16").optimizer.rate == 9
    assert recipe.changed({"optimizer.rate": 9.0}).for_network("vgg16").steps == 7


@pytest.mark.parametrize("name", ["classic", "momentum", "nesterov", "rmsprop", "adam", "AdamW", "nadam", "Adagrad"])
def test_optimisers_climb(name):
    recipe = Recipe.load("naive").changed({"optimizer.name": name, "optimizer.rate": 0.1})
    place = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    optimizer = recipe.optimizer.build(place)
    for _ in range(20):
        place.grad = -2 * place.detach()  # of -x², highest at 0
        optimizer.step()
    assert place.abs().max() < 0.9


def test_nesterov_and_momentum_are_what_they_say():
    assert find_optimizer("nesterov")[1] == {"momentum": 0.9, "nesterov": True}
    assert find_optimizer("Momentum")[1] == {"momentum": 0.9}


def test_fields_are_listed_with_their_ranges():
    listed = {name: (default, limits) for name, default, limits, _ in fields()}
    assert listed["median.size"] == ("5", "3, 5 or 7")
    assert listed["decay.strength"][1] == "above 0 and at most 1"
    assert all(meaning for *_, meaning in fields())


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("0.5", 0.5), ("[1, 2]", [1, 2]), ("true", True), ("cosine", "cosine")]
)
def test_values_are_read_as_toml_or_else_as_words(text, value):
    assert toml_value(text) == value
