import hashlib
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

import phosphene
from phosphene import Blur, Growth, InputError, Median, Optimizer, Recipe
from phosphene.ascent.step import climb
from phosphene.recipes.files import recipe_names, shipped_text
from phosphene.recipes.optimizer import find_optimizer
from phosphene.recipes.overrides import toml_value
from phosphene.recipes.section import fields
from phosphene.units.objects import Channel, Class


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
    recipe = Recipe.load("naive").override(
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


SECTIONS = {
    "start.kind": "grey",
    "canvas.exponent": 1.5,
    "canvas.colours": "photographs",
    "canvas.contrast": 2.5,
    "growth.sizes": [0.25, 0.5, 1.0],
    "growth.at": [0.0, 0.2, 0.7],
    "views.count": 4,
    "views.crop": [0.2, 0.9],
    "views.scale": [0.8, 1.25],
    "views.rotate": 15.0,
    "views.jitter": 3.0,
    "views.flip": True,
    "views.pad": 6.0,
    "views.noise": [2.0, 7.0],
    "views.colour": 0.1,
    "priors.statistics.weight": 30.0,
    "priors.statistics.source": "gathered",
    "priors.statistics.pool": "group",
    "priors.statistics.side": "above",
    "priors.statistics.margin": 0.5,
    "priors.total_variation.weight": 2.0,
    "priors.norm.weight": 3.0,
    "priors.norm.power": 6.0,
    "priors.diversity.weight": 4.0,
    "priors.diversity.layer": "relu2",
    "keep.transparency": True,
    "optimizer.options": {"weight_decay": 0.5},
}


def test_a_held_spectrum_round_trips():
    fields = {"canvas.kind": "fourier", "canvas.contrast": 2.0, "canvas.spectrum": "held"}
    recipe = Recipe.load("naive").override(fields)
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert recipe.canvas.spectrum == "held"


@pytest.mark.parametrize("canvas", ["fourier", "maco"])
def test_every_section_of_canvas_views_priors_and_growth_round_trips(canvas):
    recipe = Recipe.load("naive").override({**SECTIONS, "canvas.kind": canvas})
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    for name, value in SECTIONS.items():
        found = recipe
        for part in name.split("."):
            found = getattr(found, part)
        assert found == (tuple(value) if isinstance(value, list) else value), name
        alone = Recipe.load("naive").override({name: value}) if name.split(".")[0] in ("views", "canvas") else recipe
        assert Recipe.from_toml(alone.to_toml()) == alone


def test_priors_and_growth_are_turned_off_by_name():
    recipe = Recipe.load("naive").override(SECTIONS)
    for name in ("statistics", "total_variation", "norm", "diversity"):
        for off in ("off", False, 0):
            changed = recipe.override({f"priors.{name}": off})
            assert getattr(changed.priors, name) is None
            assert f"priors.{name}" not in changed.to_toml()
    assert recipe.override({"growth": "off"}).growth is None
    assert Recipe.load("naive").override({"priors.statistics": "off"}) == Recipe.load("naive")
    assert Recipe.load("natural").override({"priors.statistics": "off"}).priors.statistics is None


def test_one_number_for_a_range_is_both_its_ends():
    views = Recipe.load("naive").override({"views.crop": 0.5, "views.scale": 2}).views
    assert (views.crop, views.scale) == ((0.5, 0.5), (2, 2))


def test_what_resamples_the_image_is_said():
    plain = Recipe.load("naive")
    assert not plain.views.affine
    assert not plain.override({"views.noise": 3.0, "views.colour": 0.2, "views.count": 3}).views.affine
    for name in ("crop", "scale", "rotate", "jitter", "flip", "pad"):
        value = {"crop": [0.5, 1.0], "scale": [0.9, 1.1], "flip": True}.get(name, 3.0)
        assert plain.override({f"views.{name}": value}).views.affine, name


FOURIER = {"canvas.kind": "fourier", "clip": "off", "median": "off"}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"canvas.kind": "fourier"}, r"clip changes pixels, and canvas.kind is fourier: expected pixels, or priors"),
        ({**FOURIER, "canvas.kind": "maco", "blur.sigma": 1}, r"blur changes pixels, and canvas.kind is maco"),
        ({"canvas.kind": "furier"}, r"canvas.kind = 'furier': expected pixels, fourier, maco or sum"),
        ({"canvas.exponent": 5}, r"canvas.exponent = 5: expected at least 0 and at most 4"),
        ({"canvas.contrast": -1}, r"canvas.contrast = -1: expected at least 0"),
        ({"canvas.colors": "none"}, r"no field 'canvas.colors'; did you mean canvas.colours"),
        ({"growth.sizes": [0.5, 1.0]}, r"growth.at is missing"),
        ({"growth.sizes": [0.5, 0.9], "growth.at": [0, 0.5]}, r"sizes \[0.5, 0.9\]: expected shares that rise to 1"),
        ({"growth.sizes": [0.9, 0.5, 1], "growth.at": [0, 0.5, 0.6]}, r"sizes .*: expected shares that rise to 1"),
        ({"growth.sizes": [0, 1], "growth.at": [0, 0.5]}, r"sizes .*: expected shares that rise to 1"),
        ({"growth.sizes": [], "growth.at": []}, r"sizes \[\]: expected shares that rise to 1"),
        ({"growth.sizes": [0.5, 1], "growth.at": [0.1, 0.5]}, r"at \[0.1, 0.5\]: expected a share for each size"),
        ({"growth.sizes": [0.5, 1], "growth.at": [0]}, r"at \[0.0\]: expected a share for each size"),
        ({"growth.sizes": [0.5, 1], "growth.at": [0, 1]}, r"at \[0.0, 1.0\]: expected a share for each size"),
        ({"growth.sizes": [0.3, 0.5, 1], "growth.at": [0, 0.6, 0.5]}, r"at .*: expected a share for each size"),
        ({"views.crop": [0.5, 0.2]}, r"crop \[0.5, 0.2\]: expected two shares of the area that rise, up to 1"),
        ({"views.crop": [0, 1]}, r"crop \[0.0, 1.0\]: expected two shares"),
        ({"views.crop": 1.5}, r"crop \[1.5, 1.5\]: expected two shares"),
        ({"views.scale": [2, 1]}, r"scale \[2.0, 1.0\]: expected two factors above 0 that rise"),
        ({"canvas.spectrum": "held"}, r"'held' needs kind 'fourier' and a contrast above 0"),
        ({"canvas.spectrum": "held", "canvas.kind": "fourier"}, r"'held' needs kind 'fourier' and a contrast"),
        ({"canvas.spectrum": "held", "canvas.kind": "maco", "canvas.contrast": 1}, r"'held' needs kind 'fourier'"),
        ({"views.scale": 0}, r"scale \[0.0, 0.0\]: expected two factors above 0"),
        ({"views.noise": [9, 3]}, r"noise \[9.0, 3.0\]: expected two deviations that rise, from 0 up to 255"),
        ({"views.noise": -1}, r"noise \[-1.0, -1.0\]: expected two deviations"),
        ({"views.noise": 300}, r"noise \[300.0, 300.0\]: expected two deviations"),
        ({"views.rotate": 181}, r"views.rotate = 181: expected at least 0 and at most 180"),
        ({"views.count": 0}, r"views.count = 0: expected at least 1"),
        ({"views.jitter": -1}, r"views.jitter = -1: expected at least 0"),
        ({"views.colour": 2}, r"views.colour = 2: expected at least 0 and at most 1"),
        ({"views.turn": 2}, r"no field 'views.turn'"),
        ({"priors.statistics.weight": 0}, r"priors.statistics.weight = 0: expected above 0"),
        ({"priors.statistics.margin": 1}, r"priors.statistics.weight is missing"),
        (
            {"priors.statistics.weight": 1, "priors.statistics.source": "mine"},
            r"expected auto, batchnorm, gathered or unit",
        ),
        ({"priors.norm.weight": 1, "priors.norm.power": 0.5}, r"priors.norm.power = 0.5: expected at least 1"),
        ({"priors.diversty.weight": 1}, r"no field 'priors.diversty'; did you mean .*priors.diversity.weight"),
        ({"keep.transparency": "perhaps"}, r"keep.transparency = 'perhaps'"),
    ],
)
def test_bad_canvases_views_priors_and_growths_are_refused(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        Recipe.load("tence").override(fields)


def test_naming_a_field_of_a_regularizer_turns_it_on_and_off_turns_it_off():
    recipe = Recipe.load("clip").override({"median.size": 3})
    assert [name for name, _ in recipe.regularizers] == ["clip", "median"]
    assert recipe.median.size == 3
    assert [name for name, _ in recipe.override({"clip": "off"}).regularizers] == ["median"]


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
        ({"optimizer.name": "adm"}, r"no optimizer is called 'adm'; did you mean Adam"),
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
        Recipe.load("tence").override(fields)


def test_bad_recipes_are_refused(tmp_path):
    with pytest.raises(InputError, match="no recipe is called 'tense'; did you mean tence"):
        Recipe.load("tense")
    file = tmp_path / "mine.toml"
    with pytest.raises(InputError, match="there is no such file"):
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
    recipe = Recipe.load("naive").override(
        {"networks": {"vgg16": {"optimizer.rate": 3.0, "steps": 7}, "other": {"optimizer.rate": 4.0}}}
    )
    assert recipe.for_network("vgg16").optimizer.rate == 3
    assert recipe.for_network("alexnet").optimizer.rate == 4
    assert recipe.for_network("vgg16").networks == {}
    assert recipe.override({"optimizer.rate": 9.0}).for_network("vgg16").optimizer.rate == 9
    assert recipe.override({"optimizer.rate": 9.0}).for_network("vgg16").steps == 7


def test_a_section_may_be_for_all_networks_that_a_pattern_fits():
    sections = {"other": {"steps": 1}, "lite?": {"steps": 2}, "lite*": {"steps": 3}, "lite2": {"steps": 4}}
    recipe = Recipe.load("naive").override({"networks": sections})
    names = ("lite2", "lite1", "lite10", "my-lite1", "Lite1", "lite?")
    assert [recipe.for_network(name).steps for name in names] == [4, 2, 3, 1, 1, 2]


@pytest.mark.parametrize(("name", "steps"), [("vit", 3), ("vit2", 4), ("resnet", 1)])
def test_networks_of_tokens_have_a_section_of_their_own(name, steps):
    recipe = Recipe.load("naive").override(
        {
            "steps": 7,
            "networks": {
                "vit2": {"steps": 4},
                "tokens": {"steps": 3, "hidden": {"views.flip": True}},
                "other": {"steps": 1},
            },
            "hidden": {"views.rotate": 5.0},
        }
    )
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    network = SimpleNamespace(name=name, has_tokens=name != "resnet")
    of_class, of_channel = (recipe.for_network(network).for_unit(unit) for unit in (Class(3), Channel("a", 2)))
    assert of_class.steps == of_channel.steps == steps
    assert (of_class.views.flip, of_channel.views.flip) == (False, name == "vit")
    assert (of_class.views.rotate, of_channel.views.rotate) == (0, 5)
    set_by_user = recipe.override({"views.flip": False, "steps": 9}).for_network(network).for_unit(Channel("a", 2))
    assert (set_by_user.views.flip, set_by_user.steps) == (False, 9)


def test_what_is_for_hidden_units_is_put_in_for_them_and_holds_on_every_network():
    recipe = Recipe.load("naive").override(
        {
            "steps": 7,
            "priors.statistics.weight": 2.0,
            "networks": {"vgg16": {"steps": 9, "priors.statistics.weight": 3.0, "views.flip": True}},
            "hidden": {"steps": 8, "priors.statistics": "off"},
        }
    )
    of_class, of_channel = Class(3), Channel("relu1", 2)
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    for name, steps, weight in (("vgg16", 9, 3), ("other", 7, 2)):
        for settled in (recipe.for_network(name), recipe):
            assert settled.for_unit(of_channel).for_network(name).steps == 8
            assert settled.for_unit(of_channel).for_network(name).priors.statistics is None
            assert settled.for_unit(of_class).for_network(name).steps == steps
            assert settled.for_unit(of_class).for_network(name).priors.statistics.weight == weight
            assert settled.for_unit(of_channel).for_network(name).views.flip == (name == "vgg16")
    assert recipe.for_unit(of_class).hidden == recipe.for_unit(of_channel).hidden == {}


def test_what_is_set_holds_for_hidden_units_too():
    recipe = Recipe.load("natural").override({"hidden": {"canvas.contrast": 5.0, "priors.statistics": "off"}})
    channel = Channel("relu1", 2)
    assert recipe.override({"canvas.contrast": 2.0}).for_unit(channel).canvas.contrast == 2
    assert recipe.override({"priors.statistics.weight": 2.0}).for_unit(channel).priors.statistics.weight == 2
    assert recipe.override({"steps": 2}).for_unit(channel).priors.statistics is None


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        ({"view.flip": False}, r"in hidden: .*a recipe has no field 'view'.*views"),
        ({"canvas.contrast": -1.0}, r"in hidden: .*canvas\.contrast = -1\.0: expected at least 0"),
        ({"size": 64}, r"in hidden: size is of all units"),
        ({"clip.every": 3}, r"in hidden: .*expected pixels"),
    ],
)
def test_what_cannot_be_for_hidden_units_is_told(hidden, said):
    with pytest.raises(InputError, match=said):
        Recipe.load("natural").override({"hidden": hidden})


@pytest.mark.parametrize("name", ["classic", "momentum", "nesterov", "rmsprop", "adam", "AdamW", "nadam", "Adagrad"])
def test_optimisers_climb(name):
    recipe = Recipe.load("naive").override({"optimizer.name": name, "optimizer.rate": 0.1})
    place = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    optimizer = recipe.optimizer.build(place)
    assert (optimizer is None) == (name == "classic")
    for _ in range(20):
        climb(place, optimizer, -2 * place.detach(), 0.1)  # of -x², highest at 0
    assert place.abs().max() < 0.9


def test_plain_steps_are_those_of_torchs_sgd():
    ours, theirs = (torch.nn.Parameter(torch.linspace(-3, 3, 50)) for _ in range(2))
    sgd = torch.optim.SGD([theirs], lr=1.0, maximize=True)
    for step in range(30):
        direction = torch.sin(theirs.detach() * 7 + step)
        climb(ours, None, direction, 0.3 / (step + 1))
        climb(theirs, sgd, direction, 0.3 / (step + 1))
    assert torch.equal(ours, theirs)


def test_nesterov_and_momentum_are_what_they_say():
    assert find_optimizer("nesterov")[1] == {"momentum": 0.9, "nesterov": True}
    assert find_optimizer("Momentum")[1] == {"momentum": 0.9}


def test_fields_are_listed_with_their_ranges():
    listed = {name: (default, limits) for name, default, limits, _ in fields(Recipe)}
    assert listed["median.size"] == ("5", "3, 5 or 7")
    assert listed["decay.strength"][1] == "above 0 and at most 1"
    assert all(meaning for *_, meaning in fields(Recipe))


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("0.5", 0.5), ("[1, 2]", [1, 2]), ("true", True), ("cosine", "cosine")]
)
def test_values_are_read_as_toml_or_else_as_words(text, value):
    assert toml_value(text) == value


def test_what_is_turned_off_stays_off_on_every_network():
    recipe = Recipe.load("tence")
    assert "median.size" not in recipe.networks["other"]
    found = recipe.model_copy(update={"networks": {"other": {"median.size": 3}}})
    assert found.for_network("any").median.size == 3
    assert found.override({"median": "off"}).for_network("any").median is None


def test_what_differs_makes_one_recipe_of_the_other():
    tence, draft = Recipe.load("tence").for_network("a"), Recipe.load("draft")
    other = tence.override({"median": "off", "blur.sigma": 0.6, "keep.contrast": 0.1, "order": ["blur", "clip"]})
    for one, two in ((tence, other), (other, tence), (draft, draft.override({"views.crop": 0.5, "steps": 3}))):
        assert one.resume_key() == two.resume_key()
        assert one.override(one.changes_to(two)) == two
        assert one.changes_to(one) == {}
    assert other.changes_to(tence)["blur"] == "off"
    assert draft.changes_to(draft.override({"views.crop": 0.5})) == {"views.crop": [0.5, 0.5]}


@pytest.mark.parametrize(
    "change",
    [{"start.sigma": 2.0}, {"canvas.exponent": 2.0}, {"growth": {"sizes": [0.5, 1.0], "at": [0.0, 0.5]}},
     {"priors.norm.weight": 1.0}, {"priors.statistics": "off"}, {"optimizer.options": {"dampening": 0.5}}],
)  # fmt: skip
def test_what_is_settled_at_the_start_makes_another_course(change):
    draft = Recipe.load("draft")
    assert draft.override(change).resume_key() != draft.resume_key()


def test_with_growth_the_steps_are_settled_at_the_start():
    grown = Recipe.load("draft").override({"growth": {"sizes": [0.5, 1.0], "at": [0.0, 0.5]}})
    assert grown.override({"steps": 50}).resume_key() != grown.resume_key()


def test_uniform_noise_is_of_pixels():
    with pytest.raises(InputError, match="expected gaussian"):
        Recipe.load("natural").override({"start.kind": "uniform"})


# Of what each says as plain data and as TOML.
DIGESTS = {
    "blur": "95f2a46f0c1a1bb8",
    "caricature": "f042dc4c69dad283",
    "chollet": "5200e836f95cc9c5",
    "clip": "f44023e96585d4dd",
    "decay": "60320d24ad6a9f95",
    "explain": "6293e32cad6c04f5",
    "deepinversion": "23bf685b7fab4cbb",
    "draft": "b3c6616a50a12b1f",
    "dream": "256b4b6f76b7325c",
    "filters": "41a78811c0cec403",
    "ghiasi": "e94021affb7b64e6",
    "invert": "d03b9aebef73e418",
    "lucid": "c88bc8fc6232b1e9",
    "maco": "91d0117c2ccb7bd2",
    "median": "bb2b73c06509c605",
    "naive": "d910313e03f73349",
    "natural": "8738aeb7f1382de2",
    "text": "5f7d4391e70745fb",
    "tence": "8efa03be9c7cc2fe",
    "vital": "32d8282925b6b725",
    "yosinski-a": "9e142c58abeb51d7",
    "yosinski-b": "88d2c011fb1f3075",
    "yosinski-c": "4086b0e222932ed3",
    "yosinski-d": "e1ece96540d81f70",
}


def test_what_the_shipped_recipes_say_is_what_it_was():
    def digest(recipe):
        return hashlib.sha256((json.dumps(recipe.to_dict()) + recipe.to_toml()).encode()).hexdigest()[:16]

    assert {name: digest(Recipe.load(name)) for name in recipe_names()} == DIGESTS


def test_recipes_load_without_torch():
    """But for those with options of an optimizer, or an optimizer that only torch knows, which it has to check."""
    script = (
        "import sys; from phosphene import Recipe; from phosphene.recipes.files import recipe_names\n"
        "for name in set(recipe_names()) - {'deepinversion', 'maco'}:\n"
        "    Recipe.load(name).for_network('vgg16').override({'median': 'off'}).to_toml()\n"
        "print(*{'torch', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "\n"


PLAIN = "steps = 5\n[optimizer]\nrate = 2.0\noptions = { momentum = 0.5 }\n[clip]\n[networks.other]\nsteps = 9\n"


def test_a_recipe_overrides_its_base_field_by_field(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "base.toml").write_text(f"name = 'base'\ndescription = 'x'\n{PLAIN}")
    (tmp_path / "deep" / "middle.toml").write_text("base = '../base.toml'\n[optimizer]\ngradient = 'rms'\n[median]\n")
    (tmp_path / "mine.toml").write_text(
        "base = 'deep/middle.toml'\nclip = 'off'\n[optimizer]\nrate = 3\n[networks.other]\n'optimizer.rate' = 4.0\n"
    )
    mine = Recipe.load(tmp_path / "mine.toml")
    assert (mine.name, mine.description, mine.steps, mine.clip, mine.median) == ("custom", "", 5, None, Median())
    assert mine.optimizer == Optimizer(rate=3, gradient="rms", options={"momentum": 0.5})
    assert mine.networks == {"other": {"steps": 9, "optimizer.rate": 4.0}}
    assert "base" not in mine.to_dict()
    assert Recipe.from_toml("base = 'draft'\nsteps = 3").steps == 3
    assert Recipe.from_toml("base = 'draft'\nname = 'draft'").networks == Recipe.load("draft").networks
    assert shipped_text("draft").startswith('base = "natural"')


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ({"a": "base = 'a.toml'"}, r"recipe file '.*a.toml' is based on itself"),
        ({"a": "base = 'b.toml'", "b": "base = './a.toml'"}, r"recipe file '.*a.toml' is based on itself"),
        (
            {"a": "base = 'natral'"},
            r"base = 'natral': expected a recipe that ships, or a TOML file; did you mean natural",
        ),
        ({"a": "base = 3"}, r"base = 3: expected a recipe that ships, or a TOML file"),
        ({"a": "base = 'none.toml'"}, r"recipe file '.*none.toml': there is no such file"),
        ({"a": "base = 'b.toml'", "b": "steps = ["}, r"recipe file '.*b.toml' is no TOML"),
        ({"a": "base = 'natural'\n[views]\nrol = 2"}, r"recipe file '.*a.toml': a recipe has no field 'views.rol'"),
    ],
)
def test_bad_bases_are_refused(tmp_path, texts, sentence):
    for name, text in texts.items():
        (tmp_path / f"{name}.toml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        Recipe.load(tmp_path / "a.toml")


def test_only_a_file_of_the_users_own_has_a_file_as_its_base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.toml").write_text(PLAIN)
    with pytest.raises(InputError, match=r"base = 'base.toml': expected a recipe that ships$"):
        Recipe.from_toml("base = 'base.toml'")
    with pytest.raises(InputError, match="a recipe has no field 'base'"):
        Recipe.from_dict({"base": "natural"})


def test_sections_are_replaced_and_hold_on_every_network():
    tence = Recipe.load("tence")
    made = tence.replace(median=Median(size=3), optimizer=Optimizer(rate=8000), steps=7)
    assert (made.median, made.optimizer, made.steps) == (Median(size=3), Optimizer(rate=8000), 7)
    assert made.for_network("any").optimizer == Optimizer(rate=8000)
    assert made.for_network("any").schedule.kind == "cosine"
    assert tence.replace(median=None) == tence.override({"median": "off"})
    assert tence.replace(growth=Growth(sizes=(0.5, 1), at=(0, 0.5))).growth.sizes == (0.5, 1)
    assert Recipe.from_toml(made.to_toml()) == made
    assert tence == Recipe.load("tence")


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"medain": Median()}, "a recipe has no section 'medain'; did you mean median"),
        ({"functions": ()}, "a recipe has no section 'functions'"),
        ({"median": Blur()}, r"median = Blur\(.*\): Input should be a valid dictionary or instance of Median"),
        ({"steps": 0}, "steps = 0: expected at least 1"),
        ({"optimizer": None}, "optimizer = None"),
        ({"canvas": phosphene.CanvasSettings(kind="fourier")}, "clip changes pixels, and canvas.kind is fourier"),
    ],
)
def test_what_cannot_replace_a_section_is_refused(sections, sentence):
    with pytest.raises(InputError, match=sentence):
        Recipe.load("tence").replace(**sections)


@pytest.mark.parametrize(
    ("section", "values", "sentence"),
    [
        (Median, {"size": 4}, "Median: size = 4: expected 3, 5 or 7"),
        (Median, {"sise": 3}, "Median: it has no field 'sise'; did you mean size"),
        (Optimizer, {}, "Optimizer: rate is missing"),
        (Optimizer, {"rate": 1, "name": "adm"}, "Optimizer: no optimizer is called 'adm'; did you mean Adam"),
        (Growth, {"sizes": (0.5, 0.9), "at": (0, 0.5)}, "Growth: sizes .*: expected shares that rise to 1"),
        (Recipe, {"steps": 3}, "Recipe: optimizer is missing"),
    ],
)
def test_a_section_that_cannot_be_is_refused(section, values, sentence):
    with pytest.raises(InputError, match=sentence):
        section(**values)


def darker(images, mean, gradient):
    return images - 1


def test_functions_are_no_part_of_a_file():
    recipe = Recipe.load("clip").with_regularizers(darker)
    assert [name for name, _ in recipe.regularizers] == ["clip", "test_recipe.darker"]
    assert recipe.to_dict() == Recipe.load("clip").to_dict() | {"functions": ["test_recipe.darker"]}
    for changed in (recipe.override({"steps": 3}), recipe.replace(clip=None), recipe.for_network("any")):
        assert changed.functions == (darker,)
    assert recipe.with_regularizers(darker).functions == (darker, darker)
    assert recipe != Recipe.load("clip")
    with pytest.raises(InputError, match=r"recipe clip has functions that no TOML file holds: test_recipe\.darker"):
        recipe.to_toml()
    with pytest.raises(
        InputError, match=r"test_recipe\.darker is a function in Python, which no file holds, so nothing"
    ):
        Recipe.from_dict(recipe.to_dict())
    with pytest.raises(InputError, match=r"darker changes pixels, and canvas.kind is fourier"):
        Recipe.load("natural").with_regularizers(darker)
    with pytest.raises(InputError, match=r"Median\(.*\) is one of the recipe's own: expected Recipe.replace"):
        recipe.with_regularizers(Median())
