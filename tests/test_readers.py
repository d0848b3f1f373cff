"""Files from strangers: what each reader does with those that went wrong, are too long, too deep, or no files."""

import importlib.util
import json
import os
import re
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from corruption import limits
from helpers import SHARED, Small, opened, seeded
from PIL import Image

import phosphene
from phosphene import InputError
from phosphene.doctor.photographs import label_by_table, read_photographs
from phosphene.files import MAX_DEPTH, MAX_TOML, parse_json, parse_toml, read_text
from phosphene.judges import card_files
from phosphene.networks.checkpoint import check_checkpoint
from phosphene.networks.description import read_description
from phosphene.networks.labels import Labels, read_labels
from phosphene.networks.sources.caffe.mean import read_mean
from phosphene.networks.sources.caffe.model import MOST_UNTRAINED, open_caffe
from phosphene.networks.speed import precision
from phosphene.networks.weights import read_weights
from phosphene.provenance.reading import read_provenance
from phosphene.recipes.recipe import Recipe
from phosphene.tuning.space import load_space
from phosphene.units.vectors import read_vector

CASES = SHARED / "cases" / "files"
SECONDS = 10  # on a busy machine; each takes less than one


def sentence(read, *arguments):
    """What a reader says of a file that it refuses: one line, short, and soon."""
    begin = time.perf_counter()
    with pytest.raises(InputError) as caught:
        read(*arguments)
    text = str(caught.value)
    assert time.perf_counter() - begin < SECONDS
    assert "\n" not in text
    assert len(text) < 1200
    return text


def read_case(path, small):
    """A case by the reader that its name says."""
    kind = path.name.partition("_")[0]
    if kind == "csv":
        return label_by_table(path, small)
    read = {"caffe": lambda path: open_caffe(path, pretrained=False), "mean": lambda path: read_mean(path, 3)}
    return (read | {"own": read_description, "pth": read_weights})[kind](path)


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not there")
@pytest.mark.parametrize("kind", ["caffe", "csv", "mean", "own", "pth"])
def test_files_that_went_wrong_once_are_refused_in_a_sentence(kind, small):
    files = sorted(path for path in CASES.iterdir() if path.name.partition("_")[0] == kind)
    assert files
    for path in files:
        assert path.name in sentence(read_case, path, small)


def seeded_network():
    return opened(seeded(Small), labels=["cat"] * 5)


READERS = {
    "labels.txt": read_labels,
    "labels.json": read_labels,
    "recipe.toml": Recipe.load,
    "space.toml": load_space,
    "description.toml": read_description,
    "weights.pth": read_weights,
    "weights.safetensors": read_weights,
    "mean.npy": lambda path: read_mean(path, 3),
    "mean.binaryproto": lambda path: read_mean(path, 3),
    "net.prototxt": lambda path: open_caffe(path, pretrained=False),
    "net.caffemodel": lambda path: open_caffe("caffenet", path),
    "net.onnx": phosphene.open,
    "net.h5": phosphene.open,
    "net.keras": phosphene.open,
    "sae.pt": phosphene.open_dictionary,
    "sae.safetensors": phosphene.open_dictionary,
    "rows.npy": lambda path: read_vector(str(path)),
    "rows.npz": lambda path: read_vector(f"{path}#3"),
    "rows.safetensors": lambda path: read_vector(f"{path}#a,3"),
    "table.csv": lambda path: label_by_table(path, seeded_network()),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
@pytest.mark.parametrize("name", READERS)
def test_pipes_folders_and_names_that_cannot_be_are_a_sentence_and_never_waited_for(name, tmp_path):
    path = tmp_path / name
    os.mkfifo(path)
    sentence(READERS[name], path)
    path.unlink()
    path.mkdir()
    sentence(READERS[name], path)
    sentence(READERS[name], tmp_path / "nowhere" / name)
    sentence(READERS[name], tmp_path / (300 * "x" + name))


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_noise_or_of_nothing_is_a_sentence(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(bytes(range(256)) * 20)
    sentence(READERS[name], path)
    if not name.endswith(".toml") or name.startswith(("recipe", "space")):
        path.write_bytes(b"")
        sentence(READERS[name], path)


# Texts


def test_texts_that_are_nested_as_deep_as_is_allowed_are_read_and_deeper_ones_refused():
    assert parse_toml(f"a = {'[' * MAX_DEPTH}{']' * MAX_DEPTH}", "text")
    assert parse_toml(".".join("a" * MAX_DEPTH) + " = 1", "text")
    assert "nested over" in sentence(parse_toml, f"a = {'[' * 40}{']' * 40}", "text")
    assert "nested over" in sentence(parse_toml, ".".join("a" * 40) + " = 1", "text")
    assert "nested over" in sentence(parse_json, "[" * 200 + "]" * 200, "text")
    assert parse_toml('a = "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[ a.a.a"  # [[[[\nb = 1.5', "text")["b"] == 1.5


@pytest.mark.parametrize(
    "text", ["a." * 50_000 + "a = 1", "a = " + "[" * 100_000, 'a = """' + '\n\\"""' * 100_000, "'" * 99_999]
)
def test_long_texts_are_refused_soon(text):
    assert sentence(parse_toml, text, "text").startswith("text ")


def test_numbers_of_more_than_64_bits_are_refused():
    assert "64 bits" in sentence(parse_toml, "a = 0x" + "f" * 20_000, "text")
    assert "64 bits" in sentence(parse_json, "1" * 20_000, "text")
    assert "64 bits" in sentence(parse_json, f"[{2**63}]", "text")
    assert parse_json(f"[{2**63 - 1}, {-(2**63)}]", "text") == [2**63 - 1, -(2**63)]


def test_a_text_that_is_larger_than_it_may_be_is_not_read(tmp_path):
    (tmp_path / "a.toml").write_bytes(b"#" * (MAX_TOML + 1))
    assert "expected 1,048,576 at most" in sentence(Recipe.load, tmp_path / "a.toml")
    assert read_text(tmp_path / "a.toml", "text") == "#" * (MAX_TOML + 1)


def test_a_recipe_with_ten_thousand_problems_says_a_few(tmp_path):
    (tmp_path / "a.toml").write_text("steps = 1\n" + "".join(f"a{index} = 1\n" for index in range(10_000)))
    assert sentence(Recipe.load, tmp_path / "a.toml").endswith("and 9,997 more")


def test_sections_for_networks_and_choices_are_bounded(tmp_path):
    (tmp_path / "a.toml").write_text(
        "steps = 1\noptimizer.rate = 1.0\n" + "".join(f'[networks.n{i}]\n"steps" = 2\n' for i in range(5000))
    )
    assert "5,000 sections" in sentence(Recipe.load, tmp_path / "a.toml")
    (tmp_path / "s.toml").write_text(f'base = "draft"\n[fields]\nsteps = {{ choices = {list(range(1, 9000))} }}\n')
    assert "8,999 choices" in sentence(load_space, tmp_path / "s.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mode = true", "mode is True: expected one of torch"),
        ("channels = 2020-01-01", "channels datetime.date"),
        ("channels = 1000000000000", "expected a whole number of 1 to 4096"),
        ("size = [1000000, 24]", "expected a height and a width of 1 to 16384"),
        ("mean = nan", "expected finite numbers"),
        ("std = inf", "expected finite numbers"),
        ('mean = "123"', "expected finite numbers"),
        ("value_range = [0, 1, 2]", "two rising numbers"),
        ("value_range = 5", "wrong kind"),
        ("fixed_size = 3", "true or false"),
        ("labels = [1, 2]", "labels are a list of names"),
        ('labels = ["a", ""]', "label 1 is empty"),
        (f'labels = "{"x" * 5000}"', "there is no such file|cannot be read"),
    ],
)
def test_a_description_of_wrong_kinds_is_a_sentence(text, said, tmp_path):
    (tmp_path / "net.toml").write_text(text)
    with pytest.raises(InputError, match=said):
        read_description(tmp_path / "net.toml")


def test_labels_are_found_as_before_and_quickly_among_many():
    labels = Labels(["teddy, teddy bear", "bear", "pool table", *(f"thing {index}" for index in range(20_000))])
    assert [labels.find(query) for query in ("teddy", "Teddy_Bear", "bear", "pool", "7", "thing 19999")] == [
        0, 0, 1, 2, 7, 20_002,
    ]  # fmt: skip
    begin = time.perf_counter()
    for index in range(2000):
        labels.find(f"THING {index}")
    assert time.perf_counter() - begin < SECONDS
    with pytest.raises(InputError, match=r"expected an index of 0 to 20002"):
        labels.find("9" * 5000)


# Tables


def test_a_table_that_names_one_photograph_often_has_it_decoded_once(tmp_path, small, monkeypatch):
    Image.new("RGB", (30, 30), (200, 10, 10)).save(tmp_path / "a.png")
    rows = [f"a.png,{label}" for label in ("cat", "dog", "horse", "0")] * 5000
    (tmp_path / "t.csv").write_text("file,label\n" + "\n".join(rows))
    decoded = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **options: decoded.append(args) or real(*args, **options))
    photographs = label_by_table(tmp_path / "t.csv", small)
    assert photographs.labels == (0, 1, 3)
    (pixels,), readable = read_photographs(photographs, [small.preprocessing])
    assert len(decoded) == 1
    assert len(pixels) == len(readable) == 3
    assert torch.equal(pixels[0], pixels[2])


# Weights


def rewritten(path, change):
    """A checkpoint whose pickle is changed, in an archive that is whole."""
    with zipfile.ZipFile(path) as archive:
        records = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records:
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)
    return path


@pytest.mark.parametrize("new", [True, False])
def test_checkpoints_of_every_usual_kind_are_read_as_torch_reads_them(new, tmp_path):
    state = {
        "a": torch.nn.Parameter(torch.randn(3, 4)), "b": torch.randn(4, 5).T[1:], "c": torch.tensor(3),
        "d": torch.zeros(0, 3), "e": torch.ones(4, dtype=torch.bfloat16), "f": torch.ones(1).expand(5),
        "g": torch.arange(4, dtype=torch.int8), "h": torch.ones(2, dtype=torch.complex64),
    }  # fmt: skip
    optimizer = torch.optim.Adam([state["a"]]).state_dict()
    whole = {"state_dict": state, "optimizer": optimizer, "epoch": 3, "name": "x", "done": None}
    for content in (state, whole):
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
        read = read_weights(tmp_path / "a.pth")
        assert list(read) == list(state)
        assert all(torch.equal(read[name], state[name]) for name in state)


def test_a_checkpoint_that_asks_for_more_than_it_holds_is_refused_before_it_is_made(tmp_path):
    torch.save({"a": torch.ones(4)}, tmp_path / "a.pth")
    large = b"J\x00\x00\x00\x10"  # 2**28
    file = rewritten(tmp_path / "a.pth", lambda data: data.replace(b"K\x04tq", large + b"tq"))
    assert "a storage of 1,073,741,824 bytes, and holds 16" in sentence(read_weights, file)
    torch.save({"a": torch.ones(4)}, tmp_path / "a.pth")
    file = rewritten(tmp_path / "a.pth", lambda data: data.replace(b"K\x04\x85", large + b"\x85"))
    assert "beyond the end of its 4 numbers" in sentence(read_weights, file)
    torch.save({"a": torch.ones(1).expand(4)}, tmp_path / "a.pth")
    file = rewritten(tmp_path / "a.pth", lambda data: data.replace(b"K\x04\x85", large + b"\x85"))
    assert "a tensor of 268,435,456 numbers" in sentence(read_weights, file)
    torch.save({"a": torch.ones(4)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "old.pth").read_bytes()
    (tmp_path / "old.pth").write_bytes(data.replace(b"K\x04N", large + b"N"))
    assert "1,073,741,824 bytes of numbers" in sentence(read_weights, tmp_path / "old.pth")


def test_a_checkpoint_runs_nothing_and_makes_nothing(tmp_path):
    torch.save({"a": torch.ones(4)}, tmp_path / "a.pth")
    target = tmp_path / "made"
    call = f"cos\nsystem\n(S'touch {target}'\ntR.".encode()
    file = rewritten(tmp_path / "a.pth", lambda data: call)
    sentence(read_weights, file)
    (tmp_path / "plain.pth").write_bytes(call)
    sentence(read_weights, tmp_path / "plain.pth")
    sentence(check_checkpoint, tmp_path / "plain.pth", "file")
    assert not target.exists()


def test_an_archive_of_very_many_records_is_refused_before_they_are_listed(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/data.pkl", b"N.")
    data = (tmp_path / "a.pth").read_bytes()
    at = data.index(b"PK\x01\x02")
    entry, end = data[at : data.index(b"PK\x05\x06")], bytearray(data[data.index(b"PK\x05\x06") :])
    entries = entry * 90_000
    end[12:16] = struct.pack("<I", len(entries))
    for name in ("a.pth", "a.keras"):
        (tmp_path / name).write_bytes(data[:at] + entries + bytes(end))
        assert "a directory of" in sentence(READERS["weights.pth" if name == "a.pth" else "net.keras"], tmp_path / name)


# Means


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<f4", ">f8", "u1", "<i2", "<f2"])
def test_means_of_numpy_are_averaged_by_channel(order, kind, tmp_path):
    image = np.random.default_rng(0).integers(0, 99, (3, 5, 7)).astype(kind)
    np.save(tmp_path / "a.npy", np.asarray(image, order=order))
    expected = image.astype(np.float64).mean((1, 2))
    assert np.allclose(read_mean(tmp_path / "a.npy", 3), expected)
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, np.asarray(image, order=order), version=(2, 0))
    assert np.allclose(read_mean(tmp_path / "a.npy", 3), expected)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|V0', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f0', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f3', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (999999999, 999999999)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 150 + ")}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1" * 300 + ")}",
        "(" * 3000,
        "-" * 3000,
    ],
)
def test_headers_of_npy_files_are_checked_before_anything_is_mapped(header, tmp_path):
    data = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + bytes(64)
    (tmp_path / "a.npy").write_bytes(data)
    sentence(read_mean, tmp_path / "a.npy", 3)


# Definitions


HEAD = 'input: "data" input_dim: 1 input_dim: 3 input_dim: 24 input_dim: 24\n'


def chain(count, type_="ReLU", settings=""):
    return HEAD + "".join(
        f'layer {{ name: "l{index}" type: "{type_}" bottom: "{f"b{index - 1}" if index else "data"}" top: "b{index}" '
        f"{settings} }}\n"
        for index in range(count)
    )


@pytest.mark.slow
def test_a_definition_of_as_many_layers_as_the_largest_networks_opens_soon_and_of_more_is_refused(tmp_path):
    (tmp_path / "a.prototxt").write_text(chain(1500))
    begin = time.perf_counter()
    network = phosphene.open(tmp_path / "a.prototxt", pretrained=False)
    assert len(network.layers) == 1500
    assert time.perf_counter() - begin < SECONDS
    (tmp_path / "a.prototxt").write_text(chain(9000))
    assert "has 9,000 layers" in sentence(READERS["net.prototxt"], tmp_path / "a.prototxt")


def test_parameters_that_only_a_definition_asks_for_take_no_memory_and_name_the_layer(tmp_path):
    settings = "inner_product_param { num_output: 65536 }"
    (tmp_path / "a.prototxt").write_text(chain(1, "InnerProduct", settings))
    said = sentence(READERS["net.prototxt"], tmp_path / "a.prototxt")
    assert "layer 'l0' ('InnerProduct')" in said
    assert f"113,311,744 parameters: expected {MOST_UNTRAINED:,} at most" in said


def test_maps_that_only_a_definition_asks_for_are_bounded_one_by_one_and_in_all(tmp_path):
    settings = "convolution_param { num_output: 100000 kernel_size: 1 pad: 20 }"
    (tmp_path / "a.prototxt").write_text(chain(1, "Convolution", settings))
    sentence(READERS["net.prototxt"], tmp_path / "a.prototxt")
    wide = HEAD.replace("24", "4096") + chain(40).removeprefix(HEAD)
    (tmp_path / "a.prototxt").write_text(wide)
    assert "numbers are made" in sentence(READERS["net.prototxt"], tmp_path / "a.prototxt")


@pytest.mark.parametrize("value", ["0", "-1", "99999999999", "2147483647", "1e9", "0x7fffffff"])
@pytest.mark.parametrize("name", ["num_output", "kernel_size", "stride", "pad", "dilation", "group"])
def test_settings_of_zero_below_it_or_huge_are_a_sentence(name, value, tmp_path):
    if (name, value) == ("pad", "0"):
        return
    usual = {"num_output": "4", "kernel_size": "3"} | {name: value}
    settings = " ".join(f"{key}: {number}" for key, number in usual.items())
    (tmp_path / "a.prototxt").write_text(chain(1, "Convolution", f"convolution_param {{ {settings} }}"))
    said = sentence(READERS["net.prototxt"], tmp_path / "a.prototxt")
    assert "layer 'l0'" in said
    assert name in said


@pytest.mark.parametrize(
    ("place", "field", "value", "said"),
    [
        (0, "batch_shape", [None, 30000, 30000, 3], "gives 30000x30000x3 numbers for one image"),
        (1, "filters", 10**7, "cannot be opened by Keras"),
        (1, "kernel_size", [10**5, 10**5], "cannot be opened by Keras"),
        (1, "strides", [0, 0], "cannot be opened by Keras"),
        (1, None, 2000, "has 2,0.. layers: expected 1,500 at most"),
    ],
)
def test_a_keras_model_is_measured_before_it_takes_memory(place, field, value, said, tmp_path):
    if importlib.util.find_spec("keras") is None:
        pytest.skip("Keras is not installed")
    from phosphene.networks.sources.keras.files import read_keras

    corpus = Path(__file__).resolve().parent / "corpus" / "model.keras"
    with zipfile.ZipFile(corpus) as archive:
        records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    config = json.loads(records["config.json"])
    layers = config["config"]["layers"]
    if field is None:
        layers.extend([layers[place]] * value)
    else:
        layers[place]["config"][field] = value
    records["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    read_keras(corpus)  # what is imported at first use is not the file's doing
    with limits(100 << 20):
        assert re.search(said, sentence(read_keras, tmp_path / "a.keras"))


@pytest.mark.slow
def test_an_h5_file_of_twenty_thousand_groups_is_refused_soon(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        for index in range(20_000):
            file.create_group(str(index))
    from phosphene.networks.sources.keras.files import check_h5

    assert "over 15,000 groups" in sentence(check_h5, tmp_path / "a.h5")


@pytest.mark.parametrize("text", ["[" * 5000, "{}", '{"pictures": 3}', '{"pictures": [3]}', "\0"])
def test_a_damaged_run_is_left_as_it_is_where_a_card_is_kept(small, tmp_path, text):
    (picture,) = phosphene.ascend(small, "class:1", Recipe.load("naive").override({"steps": 1}))
    path = picture.save(tmp_path)
    (tmp_path / "run.json").write_text(text)
    card_files.keep(path, {"x": 1.0})
    assert read_provenance(path)["scores"]["x"] == 1.0
    assert (tmp_path / "run.json").read_text() == text


def test_what_was_measured_may_be_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "memory_path", lambda: tmp_path / "precision.json")
    monkeypatch.setattr(precision, "measure_timing", lambda *_: precision.PrecisionTiming(0.5, 0.1))
    for size, text in enumerate(("[" * 5000, "[]", "1" * 9999, "\0"), 25):  # each network is measured once
        precision.memory_path().write_text(text)
        network = opened(seeded(Small), size=size)
        with network.borrowed():
            assert precision.choose(network, torch.device("cpu")) == "bf16"
