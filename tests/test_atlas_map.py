"""Activation atlases: positions of photographs, their layout, cells, what these speak for, and the page of the map."""

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CHROMIUM, opened, seeded, written_network
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import vit
from torch import nn

import phosphene
from phosphene import InputError
from phosphene.atlas import activation_map as maps
from phosphene.atlas import class_attribution, layout, map_files, map_site, unit_map
from phosphene.atlas.activation_map import MapSettings, activation_map
from phosphene.atlas.plan import AtlasPlan, Group, map_group
from phosphene.atlas.store import Store
from phosphene.cli.program import main
from phosphene.photographs.directions import whitened
from phosphene.photographs.listing import list_photographs
from phosphene.photographs.positions import places, sample_activations

pytest.importorskip("pyarrow")
BODY = "nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))"
TAGS = "a </script> <img src=x onerror=document.title=1> <b>horse</b>"
MAP = ["--layer", "1", "--photographs", "photographs", "--grid", "3", "--positions", "4", "--of", "2", "--least", "2"]
QUICK = [*MAP, "--steps", "2"]


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    """Twelve photographs, each of a color of its own with noise."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    Path("photographs").mkdir()
    for index in range(12):
        pixels = random.integers(0, 90, (20, 20, 3)) + random.integers(0, 160, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(f"photographs/{index:02d}.png")


@pytest.fixture
def plain_layout(monkeypatch):
    """A layout that costs nothing: the first two channels."""
    monkeypatch.setattr(maps, "lay_out", lambda vectors, seed: vectors[:, :2].clone().float())


@pytest.fixture
def net(tmp_path):
    spelled = written_network(tmp_path, "net", 0, BODY)
    words = json.dumps(["cat", "dog", TAGS, "sea horse"])
    (tmp_path / "net.toml").write_text(f"size = 16\nmean = 0.5\nstd = 0.25\nlabels = {words}\n")
    return spelled


def photographs():
    return list_photographs("photographs")


def failure(capsys, *words):
    assert main(["atlas", "map", *words]) == 2
    return " ".join(capsys.readouterr().err.split())


# Positions


def test_a_position_is_read_where_it_says(small):
    found = sample_activations(small, "relu2", photographs(), count=7, seed=3)
    whole = small.activations(photographs(), "relu2")["relu2"].flatten(2)
    where = places(found.positions.shares, (12, 12))
    assert len(found.positions) == 12 * 7
    for vector, photograph, place in zip(found.vectors, found.positions.photograph, where, strict=True):
        torch.testing.assert_close(vector, whole[photograph, :, place], atol=1e-5, rtol=1e-4)
    assert all(len(set(where[found.positions.photograph == i].tolist())) == 7 for i in range(12))
    rows = whole.movedim(1, -1).flatten(0, 1).double()
    torch.testing.assert_close(found.second_moment, rows.T @ rows / len(rows), atol=1e-5, rtol=1e-4)


def test_which_positions_are_drawn_depends_on_the_seed_and_the_photograph_alone(small):
    found, other = (sample_activations(small, "relu2", photographs(), count=5, seed=seed) for seed in (3, 4))
    some = sample_activations(small, "relu2", photographs()[4:6], count=5, seed=3)
    assert torch.equal(some.positions.shares, found.positions.shares[20:30])
    assert not torch.equal(other.positions.shares, found.positions.shares)


def test_of_tokens_the_patches_are_taken():
    network = vit()
    found = sample_activations(network, "blocks.1", photographs(), count=99, seed=0)
    layer = network.layer("blocks.1")
    whole = network.activations(photographs(), "blocks.1")["blocks.1"][..., layer.tokens.prefix :]
    assert len(found.positions) == 12 * 16  # all of them, as a layer has no more
    torch.testing.assert_close(found.vectors, whole.movedim(1, -1).flatten(0, 1), atol=1e-5, rtol=1e-4)


# Cells


@given(
    st.integers(1, 7), st.integers(1, 6), st.integers(1, 4),
    st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9), st.integers(0, 5)), min_size=1, max_size=60),
)  # fmt: skip
def test_every_activation_of_a_cell_lies_in_it_and_there_are_enough_of_enough_photographs(grid, least, of, points):
    coordinates = torch.tensor([point[:2] for point in points])
    photograph = torch.tensor([point[2] for point in points])
    square = layout.on_unit_square(coordinates)
    counts: dict[int, list[int]] = {}
    for (x, y), source in zip(square.tolist(), photograph.tolist(), strict=True):
        cell = min(grid - 1, int((1 - y) * grid)) * grid + min(grid - 1, int(x * grid))
        counts.setdefault(cell, []).append(source)
    wanted = {cell: each for cell, each in counts.items() if len(each) >= least and len(set(each)) >= of}
    if not wanted:
        with pytest.raises(InputError, match=f"no cell of a grid of {grid} has {least} activations of {of}"):
            layout.cells_of(coordinates, photograph, grid, least=least, least_photographs=of)
        return
    cells = layout.cells_of(coordinates, photograph, grid, least=least, least_photographs=of)
    assert cells.index.tolist() == sorted(wanted)
    assert cells.activations.tolist() == [len(wanted[cell]) for cell in sorted(wanted)]
    assert cells.photographs.tolist() == [len(set(wanted[cell])) for cell in sorted(wanted)]
    for place, (x, y) in zip(cells.of.tolist(), square.tolist(), strict=True):
        row, column = divmod(int(cells.index[place]), grid)
        if place >= 0:
            assert column <= x * grid <= column + 1
            assert row - 1e-9 <= (1 - y) * grid <= row + 1 + 1e-9
    means = layout.mean_by_cell(coordinates, cells.of, len(cells.index))
    torch.testing.assert_close(means[0], coordinates[cells.of == 0].double().mean(0))


def test_what_is_far_out_is_moved_to_the_border():
    points = torch.cat([torch.rand(500, 2), torch.tensor([[1e6, -1e6]])])
    square = layout.on_unit_square(points)
    assert square[-1].tolist() == [1.0, 0.0]
    assert square[:-1].std(0).min() > 0.2


@pytest.mark.slow  # numba compiles for some seconds
def test_the_same_seed_lays_out_the_same_and_what_is_alike_is_near():
    random = torch.Generator().manual_seed(0)
    centers = torch.randn(3, 16, generator=random)
    vectors = torch.cat([center + 0.1 * torch.randn(20, 16, generator=random) for center in centers])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # which numba's first parallel function sets to all there are
    try:
        first, again, other = (layout.lay_out(vectors, seed) for seed in (0, 0, 1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    far = torch.cdist(first, first).fill_diagonal_(torch.inf)
    assert all(int(far[i].argmin()) // 20 == i // 20 for i in range(60))


# Directions and classes


@pytest.mark.usefixtures("plain_layout")
def test_a_cells_direction_is_its_whitened_mean(small):
    made = activation_map(small, "relu2", photographs(), settings=MapSettings(grid=3, positions=6, damping=0.5))
    sampled = sample_activations(small, "relu2", photographs(), count=6, seed=made.settings.seed)
    for place, direction in enumerate(made.directions):
        mean = sampled.vectors[made.cells.of == place].double().mean(0)
        torch.testing.assert_close(direction.double(), whitened(mean, sampled.second_moment, 0.5), atol=1e-3, rtol=1e-3)
    assert "at least 5 activations of at least 3 photographs" in made.describe()


def test_the_attribution_of_a_planted_linear_head_is_right():
    """Behind a mean over the map, a direction at one of 144 positions adds its dot product with the head / 144."""
    network = opened(seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                                  nn.Linear(8, 5))), size=14)  # fmt: skip
    sampled = sample_activations(network, "0", photographs(), count=3, seed=0)
    of = torch.arange(36) % 4 - 1
    directions = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    found, why = class_attribution.attribute(network, "0", directions, of, sampled.positions, photographs(), most=4)
    assert not why
    torch.testing.assert_close(found, directions @ network.module[3].weight.T / 144, atol=1e-6, rtol=1e-4)


@pytest.mark.usefixtures("plain_layout")
def test_a_cell_speaks_for_classes_by_what_it_has_beyond_the_average():
    network = opened(seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                                  nn.Linear(8, 5))), size=14)  # fmt: skip
    made = activation_map(network, "0", photographs(), settings=MapSettings(grid=2, positions=9))
    vectors = sample_activations(network, "0", photographs(), count=9, seed=made.settings.seed).vectors
    for place, attributed in enumerate(made.attributions):
        beyond = vectors[made.cells.of == place].mean(0) - vectors.mean(0)
        torch.testing.assert_close(attributed, network.module[3].weight.detach() @ beyond / 144, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(("open_", "layer"), [(vit, "blocks.0"), (None, "relu1")])
def test_attributions_are_the_gradients_of_the_logits_at_the_positions(open_, layer, small):
    network = open_() if open_ else small
    sampled = sample_activations(network, layer, photographs()[:2], count=2, seed=0)
    of = torch.tensor([0, 1, 1, -1])
    directions = torch.randn(2, sampled.vectors.shape[1], generator=torch.Generator().manual_seed(0))
    found, _ = class_attribution.attribute(network, layer, directions, of, sampled.positions, photographs()[:2])
    moved = torch.zeros(2, network.classes)
    known = network.layer(layer)
    for index, cell in enumerate(of.tolist()[:3]):
        pixels = network.preprocessing.photograph(Image.open(photographs()[index // 2]))[None]
        place = int(places(sampled.positions.shares, class_attribution.grid_of(known))[index])
        results = []
        for sign in (1, -1):  # a difference in place of a derivative

            def put(activation, sign=sign, place=place, cell=cell):
                at = place if known.tokens is None else place + known.tokens.prefix
                flat = activation.view(1, activation.shape[1], -1) if known.tokens is None else activation
                flat[0, :, at] += sign * 1e-2 * directions[cell]

            with network.borrowed(), torch.no_grad():
                results.append(network.forward(pixels, {layer: put}))
        moved[cell] += ((results[0] - results[1]) / 2e-2)[0] / (1 if cell == 0 else 2)
    torch.testing.assert_close(found, moved, atol=2e-3, rtol=2e-2)


@pytest.mark.usefixtures("plain_layout")
def test_without_classes_nothing_is_attributed_and_it_is_said(monkeypatch, small):
    monkeypatch.setattr(type(small), "classes", property(lambda self: 0))
    made = activation_map(small, "relu2", photographs(), settings=MapSettings(grid=2, positions=6))
    assert made.attributions is None
    assert "has no classes" in made.unattributed
    values = map_site.map_values(made, made.cells.index.tolist())
    assert values["classes"] == values["names"] == []
    assert "has no classes" in values["unattributed"]


# Files


@pytest.mark.usefixtures("plain_layout")
def test_a_map_comes_back_from_its_file_and_a_damaged_one_is_refused(small):
    made = activation_map(small, "relu2", photographs(), settings=MapSettings(grid=3, positions=6))
    data = map_files.to_bytes(made)
    back = map_files.from_bytes(data, "it")
    assert map_files.to_bytes(back) == data
    assert (back.settings, back.positions.photographs) == (made.settings, made.positions.photographs)
    wrong = [
        replace(made, cells=replace(made.cells, index=made.cells.index + 9)),
        replace(made, cells=replace(made.cells, of=made.cells.of + 99)),
        replace(made, directions=made.directions * torch.nan),
        replace(made, positions=replace(made.positions, photograph=made.positions.photograph + 99)),
    ]
    for bad in (data[:99], data[:-9], b"", *map(map_files.to_bytes, wrong)):
        with pytest.raises(InputError, match="map"):
            map_files.from_bytes(bad, "the map")
    map_files.provide("0" * 16, lambda: data)
    with pytest.raises(InputError, match="is another, or damaged"):
        map_files.find("0" * 16)


@pytest.mark.usefixtures("plain_layout")
def test_old_plans_are_written_as_they_were_and_cells_are_directions(small):
    recipe = phosphene.Recipe.load("draft").to_dict()
    plain = json.loads(AtlasPlan("a", "0" * 16, {}, [Group("x", [0], recipe)]).to_json())
    assert "map" not in plain["groups"][0]
    made = activation_map(small, "relu2", photographs(), settings=MapSettings(grid=3, positions=6))
    group = map_group(small, made)
    unit = group.unit(group.indices[1], small)
    assert str(unit).startswith(f"cos^4*dot(relu2:[{group.map}.safetensors#directions,1=")
    Path("maps").mkdir()
    Path(map_files.file_name(group.map)).write_bytes(map_files.to_bytes(made))
    spelled = f"cos^4*dot(relu2:[maps/{group.map}.safetensors#directions,1])"
    assert phosphene.parse_unit(spelled, small) == unit
    with pytest.raises(InputError, match="too few activations"):
        group.unit(99, small)
    with pytest.raises(InputError, match="too few activations"):
        map_site.map_values(made, [99])
    with pytest.raises(InputError, match="is of relu2, and not of relu1"):
        replace(group, layer="relu1").unit(group.indices[1], small)


@pytest.mark.usefixtures("plain_layout")
def test_a_map_of_a_transformer_is_of_its_patches():
    network = vit()
    made = activation_map(network, "blocks.1", photographs(), settings=MapSettings(grid=2, positions=9))
    group = map_group(network, made)
    unit = group.unit(group.indices[0], network)
    assert (group.tokens, made.tokens) == ("@patches", "@patches")
    assert str(unit).endswith("]@patches)")
    activation = network.activations(photographs()[:1], "blocks.1")["blocks.1"][0]
    patches = activation[:, network.layer("blocks.1").tokens.prefix :]
    found = map_files.responses_of(group.map, activation, network)
    torch.testing.assert_close(found[group.indices[0]], made.directions[0] @ patches, atol=1e-4, rtol=1e-4)


# The command


@pytest.mark.slow
@pytest.mark.usefixtures("plain_layout")
def test_a_map_is_made_goes_on_where_it_was_stopped_and_is_not_made_twice(net, capsys, monkeypatch):
    assert main(["atlas", "map", "at", *QUICK, "-n", net, "--plan"]) == 0
    assert "activations of 12 photographs" in capsys.readouterr().out
    store = Store("at")
    (group,) = store.plan().groups
    assert not store.rows()
    assert main(["atlas", "run", "at", "-q"]) == 0
    rows = {row["index"]: row for row in store.rows()}
    assert sorted(rows) == group.indices
    assert phosphene.show(Path("at", rows[group.indices[0]]["file"]))["recipe"]["name"] == "draft"
    # As a kill leaves it: an image is missing, one is not indexed.
    gone, unindexed = (rows[index] for index in group.indices[:2])
    before = {name: Path("at", name).read_bytes() for name in (gone["file"], unindexed["file"])}
    store.drop([gone])
    for part in Path("at/index").iterdir():
        part.unlink()
    monkeypatch.setattr(maps, "lay_out", None)  # the layout is there, and is not made again
    Path("photographs/note.png").write_text("no image")  # what cannot be read does not count
    map_files.find.cache_clear()
    capsys.readouterr()
    assert main(["atlas", "map", "at", *QUICK, "-n", net]) == 0
    assert "1 image made" in capsys.readouterr().out
    assert Path("at", gone["file"]).read_bytes()[:8] == before[gone["file"]][:8]
    made = phosphene.again(Path("at", gone["file"])).picture.pixels
    assert np.array_equal(np.asarray(Image.open(Path("at", gone["file"]))), made)
    assert Path("at", unindexed["file"]).read_bytes() == before[unindexed["file"]]
    assert store.plan().groups == [group]
    assert main(["atlas", "map", "at"]) == 0
    assert "0 images made" in capsys.readouterr().out
    assert main(["atlas", "verify", "at"]) == main(["atlas", "status", "at"]) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("plain_layout")
def test_a_layout_is_used_again_for_another_network(net, tmp_path, capsys, monkeypatch):
    other = written_network(tmp_path, "other", 1, BODY.replace("8", "6").replace("16", "24"))
    assert main(["atlas", "map", "at", *QUICK, "-n", net, "--plan"]) == 0
    monkeypatch.setattr(maps, "lay_out", None)
    words = ["--layer", "0", "--photographs", "photographs", "--layout", "at", "-n", other, "--steps", "2"]
    assert main(["atlas", "map", "by", *words, "--plan"]) == 0
    mine, theirs = (map_files.find(Store(place).plan().groups[0].map) for place in ("at", "by"))
    assert torch.equal(mine.coordinates, theirs.coordinates)
    assert torch.equal(mine.cells.index, theirs.cells.index)
    assert torch.equal(mine.cells.of, theirs.cells.of)
    assert torch.equal(mine.positions.shares, theirs.positions.shares)
    assert (theirs.layout, theirs.directions.shape[1]) == (f"{mine.network} 1", 6)
    Path("photographs/05.png").unlink()
    capsys.readouterr()
    assert "the layout is of other photographs, beginning with '06.png'" in failure(capsys, "more", *words)


def test_bad_input_is_refused_in_a_sentence(net, capsys, monkeypatch):
    for option, wanted in (
        (["--layer", "3"], "layer '3' has no positions in rows and columns (none)"),
        (["--layer", "nine"], "has no layer 'nine'"),
        (["--grid", "999"], "a grid of 999: expected 1 to 200"),
        (["--damping", "-1"], "a damping of -1.0: expected a number above 0"),
        (["--photographs", "nowhere"], "there is no such folder"),
        (["--layout", "nowhere"], "'nowhere' is no atlas"),
    ):
        said = failure(capsys, "at", *QUICK, "-n", net, *option)
        assert wanted in said
    assert "no photographs: expected --photographs DIR" in failure(capsys, "at", "--layer", "1", "-n", net)
    assert "has no map yet: expected --layer and --photographs" in failure(capsys, "at")
    for index in range(2, 12):
        Path(f"photographs/{index:02d}.png").unlink()
    said = failure(capsys, "at", *QUICK, "-n", net)
    assert "8 activations of 2 photographs: a layout needs at least 12" in said
    monkeypatch.setattr(maps, "lay_out", lambda vectors, seed: vectors[:, :2].clone())
    said = failure(capsys, "at", *QUICK, "-n", net, "--positions", "9", "--of", "3")
    assert "no cell of a grid of 3 has 2 activations of 3 photographs: the most are" in said
    assert not Path("at").exists()


# Units by likeness


@pytest.mark.slow
def test_units_are_laid_out_each_at_a_place_of_its_own(net, capsys, monkeypatch):
    monkeypatch.setattr(unit_map, "lay_out", lambda vectors, seed: vectors[:, :2].clone())
    plan = ["atlas", "plan", "at", "--layers", "0", "1", "--classes", "all", "--judges", "none", "-n", net]
    assert main([*plan, "--steps", "1", "--frames", "0", "-q"]) == main(["atlas", "run", "at", "-q"]) == 0
    for probes, wanted in (([], "20 images of the atlas"), (["--photographs", "photographs"], "12 photographs")):
        assert main(["atlas", "map", "at", "--units", *probes]) == 0
        assert f"20 units are laid out by their responses to {wanted}" in " ".join(capsys.readouterr().out.split())
    found = unit_map.read_unit_map(Store("at"))
    assert len({unit[:2] for unit in found.units}) == len(found.units) == 20
    assert {(found.groups[group], index) for _, _, group, index in found.units} == {
        *(("classes", index) for index in range(4)), *((name, index) for name in "01" for index in range(8))
    }  # fmt: skip
    assert main(["atlas", "site", "at"]) == 0
    (script,) = Path("at/site").glob("*/map-units.js")
    assert json.loads(script.read_text().partition("units = ")[2].removesuffix(";"))["grid"] == found.grid
    Path("at/maps/units.json").write_text('{"grid": 2}')
    with pytest.raises(InputError, match=r"maps/units.json"):
        unit_map.read_unit_map(Store("at"))
    assert "--units lays out the units that the atlas has" in failure(capsys, "at", "--units", "--layer", "1")


def test_places_of_many_units_are_their_own_and_keep_rows():
    points = torch.rand(3000, 2, generator=torch.Generator().manual_seed(0))
    grid, found = unit_map.grid_places(points)
    assert len(set(found)) == 3000
    assert max(found) < grid**2
    rows = torch.tensor([place // grid for place in found]).double()
    assert torch.corrcoef(torch.stack([rows, 1 - points[:, 1].double()]))[0, 1] > 0.9


# The page


def page_data():
    (script,) = Path("at/site").glob("*/map-*.js")
    return json.loads(script.read_text().partition("] = ")[2].removesuffix(";"))


@pytest.mark.usefixtures("plain_layout")
def test_the_page_knows_cells_classes_and_photographs(small):
    made = activation_map(small, "relu2", photographs(), settings=MapSettings(grid=3, positions=6))
    kept = made.cells.index.tolist()[1:]  # a cell without a picture yet
    values = map_site.map_values(made, kept)
    assert [row * 3 + column for row, column, *_ in values["cells"]] == kept
    assert [count for *_, count, _ in values["cells"]] == made.cells.activations.tolist()[1:]
    for photograph, (name, digest, cells) in enumerate(values["photographs"]):
        assert (name, digest) == made.positions.photographs[photograph]
        mine = made.cells.of[made.positions.photograph == photograph]
        assert cells == sorted({int(each) - 1 for each in mine if each >= 1})
    assert values["told"][0][0][0] == made.labels[int(made.attributions[1].argmax())]
    assert all(0 <= row <= 3 and 0 <= column <= 3 for _, names in values["names"] for row, column, _ in names)


@pytest.mark.slow
@pytest.mark.usefixtures("plain_layout")
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [1200, 390])
def test_the_map_in_a_browser(net, browser, width):
    assert main(["atlas", "map", "at", *QUICK, "-n", net, "-q"]) == 0
    assert main(["atlas", "site", "at", "--photographs", "photographs", "-q"]) == 0
    data = page_data()
    context = browser.new_context(viewport={"width": width, "height": 900})
    page, errors, requests = context.new_page(), [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"{Path('at/index.html').absolute().as_uri()}#/1%3Amap")
    page.wait_for_selector("canvas.map")

    def seen():
        page.wait_for_timeout(150)
        canvas = page.locator("canvas.map").first.screenshot()
        return np.asarray(Image.open(io.BytesIO(canvas)).convert("RGB")).astype(int)

    whole = seen()
    assert whole.std() > 5  # there are pictures on it
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("canvas.map").press("ArrowRight")
    first = page.locator("#cell").inner_text()
    assert "activations of" in first
    page.locator("canvas.map").press("ArrowDown")
    page.locator("canvas.map").press("ArrowLeft")
    page.click("#in")
    page.click("#in")
    zoomed = seen()
    assert abs(zoomed - whole).mean() > 3
    box = page.locator("canvas.map").bounding_box()
    page.mouse.move(box["x"] + 150, box["y"] + 150)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 90, steps=3)
    page.mouse.up()
    assert abs(seen() - zoomed).mean() > 1
    page.click("#all")
    plain = seen()
    name, _, cells = max(data["photographs"], key=lambda each: len(each[2]))
    page.fill("#by-photograph", name)
    page.dispatch_event("#by-photograph", "change")
    assert f"{name}: in {len(cells)} cell" in page.locator("#lit").inner_text()
    assert abs(seen() - plain).mean() > 1
    page.fill("#by-photograph", "")
    page.fill("#by-class", data["classes"][0])
    page.dispatch_event("#by-class", "change")
    assert abs(seen() - plain).mean() > 1
    page.fill("#by-class", "no such class")
    page.dispatch_event("#by-class", "change")
    assert "no cell is much of no such class" in page.locator("#lit").inner_text()
    # A photograph of another name is known by its bytes.
    page.evaluate(
        """([data, name]) => {
      const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], name));
      dispatchEvent(new DragEvent("drop", { dataTransfer: transfer }));
    }""",
        [base64.b64encode(Path("photographs", name).read_bytes()).decode(), "renamed.png"],
    )
    page.wait_for_function("name => document.getElementById('by-photograph').value === name", arg=name)
    page.locator("canvas.map").press("Enter")
    page.wait_for_selector("#image")
    assert "Classes that it speaks for" in page.locator("main").inner_text()
    assert page.locator("b").count() == 0
    assert page.title() != "1"
    context.close()
    assert not errors
    assert all(url.startswith(("file://", "data:")) for url in requests)


@pytest.mark.slow
@pytest.mark.usefixtures("plain_layout")
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
def test_two_networks_are_shown_on_one_layout(net, tmp_path, browser):
    other = written_network(tmp_path, "other", 1, BODY)
    assert main(["atlas", "map", "at", *QUICK, "-n", net, "-q"]) == 0
    words = ["--layer", "0", "--photographs", "photographs", "--layout", "at", "-n", other, "--steps", "2", "-q"]
    assert main(["atlas", "map", "by", *words]) == 0
    assert main(["atlas", "site", "at", "--beside", "by", "-q"]) == 0
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(f"{Path('at/index.html').absolute().as_uri()}#/~")
    page.wait_for_selector("canvas.map")
    assert page.locator("canvas.map").count() == 2
    page.locator("canvas.map").first.press("ArrowRight")
    shown = page.locator("#cell .told > div > a").all_inner_texts()
    assert [re.search(r"cell (.+)", text)[1] for text in shown] == [re.search(r"cell (.+)", shown[0])[1]] * 2
    page.close()
