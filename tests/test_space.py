import re
from pathlib import Path

import optuna
import pytest

from phosphene import InputError, Recipe
from phosphene.tuning.space import load_space, space_names


def space(tmp_path, text):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return load_space(file)


def draws(found, count=60):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [found.sample(study.ask()) for _ in range(count)]


@pytest.mark.parametrize("name", space_names())
@pytest.mark.parametrize("network", ["efficientnet_lite0", "another"])
def test_every_draw_from_a_space_that_ships_is_a_recipe(name, network):
    found = load_space(name)
    for values in draws(found):
        recipe = found.recipe(values, network)
        assert Recipe.from_toml(recipe.to_toml()) == recipe


@pytest.mark.parametrize("name", space_names())
def test_a_space_that_ships_can_draw_the_recipe_that_it_starts_from(name):
    found = load_space(name)
    base = found.base.for_network("another")
    values = found.sample(optuna.trial.FixedTrial(found.params_of(base)))
    drawn = found.recipe(values, "another")
    assert drawn.model_copy(update={"hidden": base.hidden}) == base  # fields that are set go before those


def test_draws_stay_within_their_ranges_and_reach_all_of_them(tmp_path):
    found = space(
        tmp_path,
        'base = "naive"\n[fields]\n"optimizer.rate" = { low = 0.01, high = 100.0, log = true }\n'
        '"steps" = { low = 3, high = 6 }\n"views.crop" = { choices = [[0.5, 1.0], 0.25] }',
    )
    drawn = draws(found, 200)
    rates = [values["optimizer.rate"] for values in drawn]
    assert min(rates) >= 0.01
    assert max(rates) <= 100
    assert 0.3 < sum(rate < 1 for rate in rates) / len(rates) < 0.7  # on a logarithmic scale 1 is in the middle
    assert {values["steps"] for values in drawn} == {3, 4, 5, 6}
    assert {str(values["views.crop"]) for values in drawn} == {"[0.5, 1.0]", "0.25"}
    assert {found.recipe(values).views.crop for values in drawn} == {(0.5, 1.0), (0.25, 0.25)}


def test_a_section_that_is_off_has_no_other_fields(tmp_path):
    found = space(
        tmp_path,
        'base = "tence"\n[fields]\n"median.every" = { low = 2, high = 9 }\n"median.size" = { choices = [0, 3] }\n'
        '"priors.total_variation.weight" = { choices = ["off", 2.0] }',
    )
    seen = set()
    for values in draws(found):
        recipe = found.recipe(values)
        off = values["median.size"] == 0
        seen.add((off, values["priors.total_variation.weight"]))
        assert ("median.every" in values) != off
        assert (recipe.median is None) == off
        assert (recipe.priors.total_variation is None) == (values["priors.total_variation.weight"] == "off")
        if not off:
            assert (recipe.median.size, recipe.median.every) == (3, values["median.every"])
    assert len(seen) == 4


def test_a_field_that_may_be_nought_does_not_switch_its_section_off(tmp_path):
    fields = '"priors.statistics.average" = { choices = [0.0] }\n"priors.statistics.weight" = { low = 1.0, high = 2.0 }'
    found = space(tmp_path, f'base = "draft"\n[fields]\n{fields}')
    for values in draws(found, 5):
        assert found.recipe(values).priors.statistics.weight == values["priors.statistics.weight"]
        assert found.recipe(values).priors.statistics.average == 0


def test_conditions_hold(tmp_path):
    found = space(
        tmp_path,
        'base = "naive"\n[fields]\n'
        '"schedule.end" = { low = 0.1, high = 0.5, when = { "schedule.kind" = ["linear"] } }\n'
        '"schedule.kind" = { choices = ["constant", "linear", "cosine"] }',
    )
    drawn = draws(found)
    assert {values["schedule.kind"] for values in drawn} == {"constant", "linear", "cosine"}
    assert all(("schedule.end" in values) == (values["schedule.kind"] == "linear") for values in drawn)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("base = ", "no TOML"),
        ('base = "naive"', r"expected base = RECIPE and a table \[fields\]"),
        ('base = "naive"\nfields = {}\n', "searches no field"),
        ('base = "naiv"\n[fields]\n"steps" = { low = 1, high = 2 }', "did you mean naive"),
        (
            'base = "naive"\n[fields]\n"median.sice" = { choices = [3] }',
            "no field 'median.sice'; did you mean median.size",
        ),
        ('base = "naive"\n[fields]\n"median.size" = { choices = [3, 4] }', "median.size = 4: expected 3, 5 or 7"),
        ('base = "naive"\n[fields]\n"steps" = { low = 5, high = 5 }', "two numbers that rise"),
        ('base = "naive"\n[fields]\n"steps" = { low = 0, high = 5 }', "steps = 0: expected at least 1"),
        ('base = "naive"\n[fields]\n"optimizer.rate" = { low = 0.0, high = 5.0, log = true }', "above 0"),
        ('base = "naive"\n[fields]\n"steps" = 3', "expected { low, high, log } or { choices }"),
        ('base = "naive"\n[fields]\n"steps" = { low = 1, hihg = 3 }', "expected { low, high, log } or { choices }"),
        ('base = "naive"\n[fields]\n"steps" = { choices = [] }', "a list of values"),
        (
            'base = "naive"\n[fields]\n"steps" = { low = 1, high = 3, when = { "start.kind" = ["grey"] } }',
            "'start.kind', which is not searched",
        ),
    ],
)
def test_a_bad_space_is_refused_with_what_is_wrong(tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence):
        space(tmp_path, text)


def test_a_space_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="did you mean classes"):
        load_space("clases")
    with pytest.raises(InputError, match="there is no such file"):
        load_space("nowhere.toml")


def test_the_space_of_the_docs_is_one(tmp_path):
    page = (Path(__file__).resolve().parents[1] / "docs" / "search.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    found = space(tmp_path, text)
    assert len(found.domains) == 6
    for values in draws(found, 20):
        found.recipe(values)
