import json
import platform
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import optuna
import pytest
import torch
from helpers import Small, opened, seeded
from PIL import Image
from tiny import LABELS, normed

import phosphene
from phosphene import InputError, Recipe
from phosphene.api import ascend as ascend_module
from phosphene.cli.program import main
from phosphene.recipes import tuned_recipes
from phosphene.tuning import run as search_run
from phosphene.tuning import samplers, trials
from phosphene.tuning import study as search_study
from phosphene.tuning.report import write_report
from phosphene.tuning.search import search
from phosphene.tuning.settings import SearchSettings
from phosphene.tuning.space import Space, load_space
from phosphene.units.objects import Channel, Class

TESTS = Path(__file__).parent
SPACE = """
base = "base.toml"
[fields]
"optimizer.rate" = { low = 0.001, high = 0.5, log = true }
"canvas.contrast" = { low = 1.0, high = 5.0 }
"canvas.spectrum" = { choices = ["free", "held"] }
"""


@pytest.fixture
def space(tmp_path):
    fields = {"optimizer.rate": 0.002, "canvas.contrast": 1.1, "priors.statistics.every": 1}
    weak = Recipe.load("draft").override(fields)
    (tmp_path / "base.toml").write_text(weak.to_toml())
    file = tmp_path / "space.toml"
    file.write_text(SPACE)
    return file


@pytest.fixture
def judge():
    """Knows the classes of `normed`, otherwise."""
    module = seeded(Small)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)  # else it shares its first layer with `normed`
    return opened(module, labels=LABELS).replace(name="judge")


def quick(network, *layer, tmp_path, on_trial=None, **settings):
    settings = {"trials": 6, "steps": 9, "out": tmp_path / "out", "keep": False} | settings
    return search(network, *layer, settings=SearchSettings(**settings), on_trial=on_trial)


def test_a_layers_recipe_is_the_best_of_what_was_tried(tmp_path, space):
    made = quick(normed(), "relu1", tmp_path=tmp_path, space=space, trials=12, count=3)
    complete = [outcome for outcome in made.trials if outcome.state == "complete"]
    assert len(made.trials) == 12
    assert complete
    assert made.recipe.found.score == pytest.approx(max(outcome.score for outcome in complete), abs=1e-6)
    assert (made.recipe.found.units, made.recipe.found.trials, made.recipe.steps) == ("relu1", 12, 9)
    assert made.recipe.optimizer.rate == made.best.values["optimizer.rate"]
    assert Recipe.load(made.folder / "recipe.toml") == made.recipe


@pytest.mark.slow
def test_the_score_of_a_class_is_what_the_judges_say(tmp_path, space, judge):
    network = normed()
    made = quick(network, tmp_path=tmp_path, space=space, judges=[judge], count=3, trials=8)
    units = [
        Class(index) for index in sorted(torch.randperm(5, generator=torch.Generator().manual_seed(1337))[:3].tolist())
    ]
    result = phosphene.ascend(network, units, made.recipe)
    cards = phosphene.judge(result, [judge])
    assert made.best.score == pytest.approx(sum(card["judged"]["probability"] for card in cards) / 3, abs=1e-3)
    assert made.recipe.found.judges == ("judge",)
    # That these images were tuned to please that judge is on their cards, also when they are read from their files.
    assert all(card["tuned"] == ["judge"] for card in cards)
    result.save(tmp_path / "images")
    file = next((tmp_path / "images").glob("*_*.png"))
    assert phosphene.judge(file, [judge], network=network)[0]["tuned"] == ["judge"]
    plain = phosphene.ascend(network, units[:1], "draft")
    assert "tuned" not in phosphene.judge(plain, [judge])[0]


@pytest.mark.slow
def test_the_seed_decides_what_is_drawn_but_not_again_by_one_that_goes_on(tmp_path, space):
    def drawn(out, trials=5, **options):
        made = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=1, trials=trials, out=out, **options)
        return [outcome.values["optimizer.rate"] for outcome in made.trials]

    first = drawn(tmp_path / "a")
    assert drawn(tmp_path / "b") == first
    assert drawn(tmp_path / "c", seed=2)[1:] != first[1:]
    more = drawn(tmp_path / "a", trials=9)
    assert more[:5] == first
    assert len(set(more)) == 9


def test_a_faint_image_is_worth_less_than_a_full_one(tmp_path):
    """It is robust and selective, but hardly excites its unit."""
    file = tmp_path / "rates.toml"
    file.write_text('base = "draft"\n[fields]\n"optimizer.rate" = { choices = [0.0001, 0.1] }\n')
    made = quick(normed(), "relu2", tmp_path=tmp_path, space=file, count=3, sampler="random", pruner="none", trials=8)
    worth = {outcome.values["optimizer.rate"]: outcome.score for outcome in made.trials}
    assert worth[0.0001] < 0.7 * worth[0.1]
    assert worth[0.1] == pytest.approx(made.base, abs=1e-3)  # which is as the recipe that it starts from


@pytest.mark.slow
def test_pruning_ends_the_worse_trials_early(tmp_path, space, monkeypatch):
    monkeypatch.setattr(samplers, "LEAST_STEPS", 1)
    made = quick(normed(), "relu2", tmp_path=tmp_path, space=space, trials=14, count=2)
    steps = {outcome.number: [rung.steps for rung in outcome.rungs] for outcome in made.trials}
    pruned = [outcome for outcome in made.trials if outcome.state == "pruned"]
    assert len(pruned) >= 5
    assert all(steps[outcome.number] in ([1], [1, 3]) for outcome in pruned)
    assert all(steps[outcome.number] == [1, 3, 9] for outcome in made.trials if outcome.state == "complete")


@pytest.mark.parametrize(("steps", "rungs"), [(9, 1), (119, 1), (120, 2), (128, 2), (360, 3), (9999, 3)])
def test_a_rung_has_forty_steps_or_more(steps, rungs):
    assert samplers.count_rungs(steps) == rungs


def test_the_first_trial_is_the_recipe_that_the_search_starts_from(tmp_path, space):
    made = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=1)
    (first,) = made.trials
    assert (first.values["optimizer.rate"], first.values["canvas.contrast"]) == (0.002, 1.1)
    assert first.score == pytest.approx(made.base, abs=1e-3)
    assert made.recipe is None  # nothing is found that is not there


@pytest.mark.parametrize("options", [
    {"sampler": "random"},
    pytest.param({"pruner": "hyperband", "steps": 120}, marks=pytest.mark.slow),
    {"pruner": "none"},
])  # fmt: skip
def test_other_samplers_and_pruners(tmp_path, space, options):
    made = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, **options)
    assert len(made.trials) == 6
    assert made.best is not None


def test_compute_is_the_second_objective(tmp_path, space):
    file = tmp_path / "steps.toml"
    file.write_text(SPACE + '"steps" = { low = 1, high = 12 }\n')
    made = quick(normed(), "relu1", tmp_path=tmp_path, space=file, count=2, compute=True, trials=8)
    assert [trial.values[1] for trial in made.study.trials] == [o.values["steps"] for o in made.trials]
    front = made.front()
    assert all(a[1].passes < b[1].passes and a[1].score < b[1].score for a, b in pairwise(front))
    for outcome in made.trials:
        assert any(
            rung.passes <= outcome.rungs[-1].passes and rung.score >= outcome.rungs[-1].score for _, rung in front
        )


@pytest.mark.slow
def test_a_search_goes_on_where_it_was(tmp_path, space):
    first = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=4)
    again = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=7)
    assert again.folder == first.folder
    assert len(again.trials) == 7
    assert again.trials[:4] == first.trials
    assert len({outcome.values["optimizer.rate"] for outcome in again.trials}) == 7
    other = quick(normed(), "relu2", tmp_path=tmp_path, space=space, count=2, trials=2)
    assert other.folder != first.folder
    assert len(other.trials) == 2


def test_values_that_do_not_go_together_are_a_failed_trial(tmp_path):
    file = tmp_path / "odd.toml"
    file.write_text(
        'base = "draft"\n[fields]\n"canvas.spectrum" = { choices = ["held"] }\n'
        '"canvas.contrast" = { choices = [0.0, 3.0] }\n'
    )
    made = quick(normed(), "relu1", tmp_path=tmp_path, space=file, count=2, trials=10, sampler="random")
    failed = [outcome for outcome in made.trials if outcome.state == "failed"]
    assert failed
    assert all("needs kind 'fourier' and a contrast above 0" in outcome.reason for outcome in failed)
    assert all((outcome.values["canvas.contrast"] == 0) == (outcome.state == "failed") for outcome in made.trials)
    assert made.best.values["canvas.contrast"] == 3.0


def test_a_trial_that_cannot_be_made_does_not_end_the_others(tmp_path, space, monkeypatch):
    real = ascend_module.ascend

    def ascend(network, units, recipes, **options):
        if any(recipe.canvas.contrast > 3.5 for recipe in ([recipes] if isinstance(recipes, Recipe) else recipes)):
            raise RuntimeError("no room for so much contrast")
        return real(network, units, recipes, **options)

    monkeypatch.setattr(search_run, "ascend", ascend)
    made = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=8)
    for outcome in made.trials:
        loud = outcome.values["canvas.contrast"] > 3.5
        assert (outcome.state == "failed") == loud
        assert (outcome.reason == "RuntimeError: no room for so much contrast") == loud
    assert {outcome.state for outcome in made.trials} > {"failed"}


def test_an_interrupted_search_takes_its_trials_up_again(tmp_path, space, monkeypatch):
    real, calls = ascend_module.ascend, []

    def ascend(*arguments, **options):
        calls.append(1)
        result = real(*arguments, **options)
        result.interrupted = len(calls) == 2  # after the images of the base
        return result

    monkeypatch.setattr(search_run, "ascend", ascend)
    first = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=3)
    assert first.interrupted
    assert first.trials == []
    drawn = [trial.params for trial in first.study.trials if trial.state.name == "FAIL"]
    again = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=3)
    assert len(again.trials) == 3
    assert sorted(outcome.values["optimizer.rate"] for outcome in again.trials) == sorted(
        params["optimizer.rate"] for params in drawn
    )


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from tiny import normed
from phosphene import SearchSettings, search
settings = SearchSettings(space={space!r}, count=2, trials={trials}, steps={steps}, out={out!r}, keep=False)
import phosphene.tuning.search, optuna  # what takes time, before it is said that this process is ready
print("ready", flush=True)
sys.stdin.readline()
search(normed(), "relu1", settings, on_trial=lambda outcome: print(outcome.number, flush=True))
"""


def begun(space, out, trials, steps=9):
    """A process that searches as soon as it is told to."""
    code = SCRIPT.format(tests=str(TESTS), space=str(space), out=str(out), trials=trials, steps=steps)
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def told(*processes):
    """The processes, told to begin once all are ready."""
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    return list(processes)


@pytest.mark.slow
def test_what_a_killed_process_had_in_work_is_made_by_the_next(tmp_path, space):
    out = tmp_path / "out"
    with told(begun(space, out, 40, steps=50))[0] as process:
        process.stdout.readline()  # one trial has ended, others are under way
        process.send_signal(signal.SIGKILL)
    before = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=1, steps=50).trials
    left = optuna.load_study(study_name=None, storage=_journal(out)).trials
    taken = [trial for trial in left if trial.state.name == "WAITING"]
    assert taken  # those that were under way wait
    made = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=len(before) + len(taken), steps=50)
    assert [outcome for outcome in made.trials if outcome in before] == before
    values = [outcome.values["optimizer.rate"] for outcome in made.trials]
    assert {trial.system_attrs["fixed_params"]["optimizer.rate"] for trial in taken} <= set(values)
    assert len(values) == len(set(values))
    assert all(trial.state.is_finished() for trial in made.study.trials)


def _journal(out):
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(out / "searches.journal")))


@pytest.mark.slow
def test_processes_share_a_search(tmp_path, space):
    out = tmp_path / "out"
    processes = told(*(begun(space, out, 16, steps=27) for _ in range(2)))
    printed = [process.communicate(timeout=300)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    made = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=16, steps=27)
    assert all(printed), "one of the processes made nothing"
    assert sorted(int(number) for numbers in printed for number in numbers) == [
        outcome.number for outcome in made.trials
    ]
    assert 16 <= len(made.trials) <= 17  # both may begin the last one
    drawn = [rate for outcome in made.trials if (rate := outcome.values["optimizer.rate"]) != 0.002]
    assert len(drawn) >= len(made.trials) - 2  # both may begin with the recipe that the search starts from
    assert len(set(drawn)) == len(drawn)


def test_a_trial_that_does_not_say_yet_whose_it_is_is_not_taken_back(tmp_path, space):
    made = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=2)
    fresh = made.study.ask()  # as another process that has just begun it
    again = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=4)
    assert again.study.trials[fresh.number].state.name == "RUNNING"


@pytest.mark.slow
def test_no_trial_is_begun_after_the_budget(tmp_path, space):
    clock = time.monotonic()
    made = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=100_000, budget=0.02)
    assert made.trials
    assert time.monotonic() - clock < 60
    assert all(trial.state.is_finished() for trial in made.study.trials)


@pytest.mark.slow
def test_a_database_keeps_a_search_as_well(tmp_path, space):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    made = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=2, storage=storage)
    again = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=3, storage=storage)
    assert again.trials[:2] == made.trials


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sampler": "tpee"}, "sampler 'tpee': expected tpe, random; did you mean tpe"),
        ({"pruner": "halve"}, "pruner 'halve'"),
        ({"trials": 0}, "expected all above 0"),
        ({"judges": ["efficientnet_lite0"]}, "expected --photographs"),
        ({"storage": "nosuch://x"}, "storage 'nosuch://x' cannot be used"),
        ({"space": "layer"}, "did you mean layers"),
    ],
)
def test_bad_input_is_refused(tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        quick(normed(), "relu1", tmp_path=tmp_path, **options)


def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(tmp_path, space):
    file = tmp_path / "photo.jpg"
    file.write_bytes(b"\xff\xd8 no journal\n")
    with pytest.raises(InputError, match="is no journal of a search"):
        quick(normed(), "relu1", tmp_path=tmp_path, space=space, storage=file)
    assert file.read_bytes() == b"\xff\xd8 no journal\n"


def test_a_judge_that_is_related_is_refused(tmp_path, space):
    with pytest.raises(InputError, match="is small, which is to be shown"):
        quick(normed(), tmp_path=tmp_path, space=space, judges=[normed()])


# What was found is used.


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOSPHENE_RECIPES", str(tmp_path / "recipes"))
    return tmp_path / "recipes"


def test_a_found_recipe_is_kept_for_its_network_and_layer_alone(tmp_path, space, recipes):
    network = normed()
    made = quick(network, "relu1", tmp_path=tmp_path, space=space, count=2, trials=8, keep=True)
    assert tuned_recipes.find(network, Channel("relu1", 5)) == made.recipe
    assert tuned_recipes.find(network, Channel("relu2", 5)) is None
    assert tuned_recipes.find(network, Class(1)) is None
    assert tuned_recipes.find(opened(seeded(Small)), Channel("relu1", 5)) is None
    assert [path.name for path in recipes.rglob("*.toml")] == ["relu1.toml"]


@pytest.mark.slow
def test_filters_and_classes_use_what_was_found(capsys, tmp_path, lite0, recipes):
    layer = "blocks.2.0.bn1"
    own = Recipe.load("naive").override(
        {"name": "mine", "steps": 2, "found": {"network": lite0.name, "weights": lite0.digest, "units": layer,
         "score": 0.5, "trials": 3}}
    )  # fmt: skip
    tuned_recipes.keep(own, lite0)
    arguments = [
        "filters",
        f"{layer}:0,1",
        "blocks.1.0.bn1:0",
        "--steps",
        "1",
        "--size",
        "48",
        "-o",
        str(tmp_path / "o"),
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "recipe   mine" in out
    assert "recipe   draft" in out
    names = {file.stem: phosphene.show(file)["recipe"]["name"] for file in (tmp_path / "o").glob("blocks*.png")}
    assert sorted(names.values()) == ["draft", "mine", "mine"]
    assert main([*arguments, "-r", "clip"]) == 0  # what is asked for comes first
    assert "recipe   mine" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_searches_reports_and_is_read_back(capsys, tmp_path, space, recipes):
    arguments = [
        "search",
        "--layer",
        "blocks.1.0.bn1",
        "--count",
        "2",
        "--trials",
        "3",
        "--steps",
        "3",
        "--space",
        space,
    ]
    out = tmp_path / "o"
    status = main([*map(str, arguments), "-o", str(out), "--report", "--pruner", "none"])
    printed = capsys.readouterr().out
    assert status == 0
    assert len(re.findall(r"^ +\d+  complete +3 steps  [\d.]+  optimizer.rate=", printed, re.MULTILINE)) == 3
    (page,) = out.rglob("index.html")
    text = page.read_text()
    links = re.findall(r'src="([^"]+)"', text)
    assert len(links) >= 4
    for link in links:
        with Image.open(page.parent / link) as image:
            assert image.width > 100
    assert "http" not in text
    status = main([*map(str, arguments), "-o", str(out), "--json", "--pruner", "none"])
    data = json.loads(capsys.readouterr().out)
    assert len(data["trials"]) == 3
    assert data["best"] in [trial["number"] for trial in data["trials"]]
    assert (data["recipe"] is not None) == bool(list(recipes.rglob("*.toml")))


def test_a_report_of_a_search_without_trials_says_so(tmp_path, space):
    made = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, budget=1e-9)
    assert made.trials == []
    assert made.recipe is None
    assert "Nothing to show yet" in write_report(made).read_text()


@pytest.mark.slow
def test_optuna_is_as_talkative_after_a_search_and_a_report_as_before(tmp_path, space):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    write_report(quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=1, trials=1))
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
    with pytest.raises(InputError):
        quick(normed(), "no such layer", tmp_path=tmp_path, space=space)
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING


def test_spaces_tell_all_that_is_drawn(space):
    texts = {load_space(name).text() for name in ("classes", "layers", "post", space)}
    assert len(texts) == 4


# Killed searches, and storages.


def as_if_killed(file, number):
    """Put a trial that has ended back to where a process that was killed left it: running, of a process that is gone.

    The journal has no way back, so that it is written anew, up to what the trial was told last.
    """
    kept = []
    for line in file.read_text().splitlines(True):
        log = json.loads(line)
        if log.get("trial_id") == number and log["op_code"] == 6 and log.get("state") != 0:  # it is told its end
            continue
        if "process" in log.get("user_attr", {}):
            log["user_attr"]["process"] = f"{platform.node()} 999999999 1.00"
        kept.append(json.dumps(log, separators=(",", ":")) + "\n")
    file.write_text("".join(kept))


def test_a_search_whose_last_trials_were_killed_goes_on(tmp_path, space):
    first = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=3)
    as_if_killed(tmp_path / "out/searches.journal", 2)
    assert [trial.state.name for trial in _study(tmp_path / "out").trials] == ["COMPLETE", "COMPLETE", "RUNNING"]
    again = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=3)
    assert [outcome.number for outcome in again.trials] == [0, 1, 3]
    assert again.trials[:2] == first.trials[:2]
    assert again.trials[2].values == first.trials[2].values
    assert again.trials[2].score == pytest.approx(first.trials[2].score, abs=1e-3)


def _study(out):
    return optuna.load_study(study_name=None, storage=_journal(out))


def test_a_trial_given_back_by_a_process_killed_before_another_waited_in_its_place_is_made(tmp_path, space):
    first = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=2)
    trial = first.study.ask()
    trial.set_user_attr("given_back_by", f"{platform.node()} 999999999 1.00")
    first.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    again = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=3)
    assert len(again.trials) == 3
    assert {outcome.state for outcome in again.trials} <= {"complete", "pruned"}


def test_a_trial_says_whose_it_is_from_its_first_moment(tmp_path, space, monkeypatch):
    """Else one of a process killed at that moment would count as running for a quarter of an hour."""
    known = []
    real = Space.sample

    def drawn(self, trial):
        known.append(trial.user_attrs["process"])
        return real(self, trial)

    monkeypatch.setattr(Space, "sample", drawn)
    made = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=1, trials=3)
    assert known == [trials.process_name()] * 3
    first = [json.loads(line) for line in (tmp_path / "out/searches.journal").read_text().splitlines()]
    created = [log for log in first if log["op_code"] == 4]
    assert len(created) == len(made.trials)
    assert all(log["user_attrs"].get("process") or log["system_attrs"]["fixed_params"] for log in created)


def test_an_exception_in_a_search_gives_its_trials_back(tmp_path, space):
    def stumble(outcome):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=3, on_trial=stumble)
    assert "RUNNING" not in [trial.state.name for trial in _study(tmp_path / "out").trials]
    made = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=2, trials=3)
    assert len(made.trials) == 3


@pytest.mark.slow
def test_a_lock_of_a_process_that_was_killed_is_taken_over(tmp_path, space, monkeypatch):
    """Also where the folder was given as a relative path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search_study, "LOCK_SECONDS", 3)
    first = quick(normed(), "relu1", tmp_path=Path(), space=space, count=1, trials=1)
    (tmp_path / "out/searches.journal.lock").symlink_to(tmp_path / "out/searches.journal")
    again = quick(normed(), "relu1", tmp_path=Path(), space=space, count=1, trials=2)
    assert again.trials[:1] == first.trials


def test_half_a_last_line_spoils_no_storage(tmp_path, space):
    """As a full disk leaves it."""
    first = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=1, trials=2)
    with (tmp_path / "out/searches.journal").open("a") as file:
        file.write('{"op_code":8,"worker_id":"x","tri')
    again = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=1, trials=3)
    assert again.trials[:2] == first.trials
    assert quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=1, trials=3).trials == again.trials


NO_JOURNALS = {
    "another program's, without an end of line": b"hello",
    "a database": b"SQLite format 3\0" + bytes(100),
    "other JSON": b'{"a": 1}\n{"b": 2}\n',
    "other types": b'{"op_code":0,"worker_id":"x","study_name":[],"directions":"up"}\n',
    "an unknown operation": b'{"op_code":99,"worker_id":"x"}\n',
    "damaged in the middle": b'{"op_code":0,"worker_id":"x","study_name":"a","directions":[2]}\n{"op_c\n{}\n',
}


@pytest.mark.parametrize("what", NO_JOURNALS)
def test_a_storage_that_is_damaged_or_of_another_program_is_one_sentence(tmp_path, space, what):
    file = tmp_path / "file"
    file.write_bytes(NO_JOURNALS[what])
    with pytest.raises(InputError, match=r"storage '.*file' ") as error:
        quick(normed(), "relu1", tmp_path=tmp_path, space=space, storage=file)
    assert "a file that a search wrote" in str(error.value)
    assert "\n" not in str(error.value)
    assert file.read_bytes() == NO_JOURNALS[what]


def test_one_storage_keeps_searches_of_several_networks_and_spaces_and_other_studies_apart(tmp_path, space):
    other = optuna.create_study(study_name="other", storage=_journal(tmp_path))
    other.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    storage = tmp_path / "searches.journal"
    first = quick(normed(), "relu1", tmp_path=tmp_path, space=space, count=1, trials=2, storage=storage)
    wider = tmp_path / "wider.toml"
    wider.write_text(space.read_text().replace("high = 0.5", "high = 0.6"))
    second = quick(normed(), "relu1", tmp_path=tmp_path, space=wider, count=1, trials=2, storage=storage)
    third = quick(opened(seeded(Small), labels=LABELS), "relu1", tmp_path=tmp_path, space=space, count=1, trials=2,
                  storage=storage)  # fmt: skip
    assert len({made.folder for made in (first, second, third)}) == 3
    assert [len(made.trials) for made in (first, second, third)] == [2, 2, 2]
    assert len(other.trials) == 2
