import copy
import gc
import io
import json
import os
import sys
import weakref
import zipfile

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest
import torch
from corruption import check_corrupted
from helpers import SHARED
from PIL import Image
from torch.nn import functional as F

import phosphene
from phosphene import InputError, Recipe
from phosphene.networks.sources.keras import files as keras_files
from phosphene.networks.sources.keras.model import FAMILIES, open_keras, preprocessing_mode
from phosphene.networks.sources.keras.vgg import is_old_vgg, read_old_weights

keras = pytest.importorskip("keras")
h5py = pytest.importorskip("h5py")
layers = keras.layers
pytestmark = pytest.mark.slow  # Keras traces and saves slowly, and most files here are damaged by the dozen

MOBILENET = SHARED / "weights" / "mobilenet_v1"
trained = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")


def branch():
    inputs = keras.Input((16, 16, 8))
    maps = layers.Conv2D(6, 3, padding="same", name="conv")(inputs)
    return keras.Model(inputs, layers.Activation("silu", name="silu")(maps), name="branch")


def small(top="dense", order="channels_last", nested=True, size=32):
    """A classifier of five classes with every kind of layer that matters here, its weights seeded."""
    keras.utils.set_random_seed(3)
    last = order == "channels_last"
    inputs = keras.Input((size, size, 3) if last else (3, size, size))
    maps = layers.Conv2D(8, 3, padding="same", activation="relu", name="first", data_format=order)(inputs)
    maps = layers.BatchNormalization(axis=-1 if last else 1, name="norm")(maps)
    maps = layers.MaxPooling2D(2, name="pool", data_format=order)(maps)
    if nested and last:
        maps = branch()(maps)
    maps = layers.Conv2D(8, 3, name="second", data_format=order)(maps)
    maps = layers.ReLU(name="relu")(maps)
    vector = layers.GlobalAveragePooling2D(name="mean", data_format=order)(maps)
    vector = layers.Dropout(0.5, name="drop")(vector)
    if top == "dense":
        outputs = layers.Dense(5, activation="softmax", name="top")(vector)
    else:
        outputs = layers.Dense(5, name="logits")(vector)
        if top == "activation":
            outputs = layers.Activation("softmax", name="top")(outputs)
        if top == "softmax":
            outputs = layers.Softmax(name="top")(outputs)
        if top == "reshaped":
            outputs = layers.Activation("softmax", name="top")(layers.Reshape((1, 1, 5), name="maps")(outputs))
            outputs = layers.Reshape((5,), name="flat")(outputs)
    model = keras.Model(inputs, outputs, name="small")
    for variable in model.weights:  # batch norm's too, so that its place matters
        if variable.path.startswith("norm"):
            variable.assign(np.random.default_rng(1).uniform(0.5, 1.5, variable.shape))
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The same small model in Keras's formats."""
    folder = tmp_path_factory.mktemp("keras")
    model = small()
    model.save(folder / "small.keras")
    model.save(folder / "small.h5")
    model.save_weights(folder / "small.weights.h5")
    return folder


def images(rows=2, size=32, seed=0, channels=3):
    return torch.rand(rows, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 255


def forward(network, pixels):
    with network.borrowed(), torch.no_grad():
        return network.forward(pixels)


def quick(steps, rate=6.0):
    fields = {"optimizer.gradient": "rms", "optimizer.rate": rate, "steps": steps}
    return Recipe.load("clip").override(fields)


# Running


@trained
def test_the_trained_keras_model_gives_what_the_onnx_file_gives():
    runtime = pytest.importorskip("onnxruntime")
    network = open_keras(f"{MOBILENET}.keras")
    assert network.preprocessing.value_range == (-1, 1)
    assert network.preprocessing.layout == "NHWC"
    assert "preprocessing" not in network.notes
    photographs = [Image.open(path) for path in sorted((SHARED / "images").glob("*.jpg"))[:6]]
    pixels = torch.stack([network.preprocessing.photograph(image) for image in photographs])
    session = runtime.InferenceSession(f"{MOBILENET}.onnx")
    (expected,) = session.run(None, {"image": (pixels / 127.5 - 1).numpy()})
    expected = torch.from_numpy(expected)
    probabilities = network.module(network.preprocessing(pixels)).detach()
    torch.testing.assert_close(probabilities, expected.softmax(1), atol=1e-5, rtol=1e-4)
    logits = forward(network, pixels)
    centred = [values - values.mean(1, keepdim=True) for values in (logits, expected)]
    torch.testing.assert_close(*centred, atol=1e-3, rtol=1e-4)
    assert logits.argmax(1).tolist() == [0, 5, 10, 15, 20, 25]
    assert network.labels[130].wordnet == "n02007558"


@trained
def test_class_images_through_keras_are_those_through_onnx():
    units, recipe = ["class:130", "class:850"], quick(10, rate=3.0)
    first = open_keras(f"{MOBILENET}.keras")
    second = phosphene.open(f"{MOBILENET}.onnx", first.preprocessing.preset("tf"))
    through_keras, through_onnx = (
        phosphene.ascend(network, units, recipe, options=phosphene.RunOptions(precision="fp32"))
        for network in (first, second)
    )
    for one, other in zip(through_keras, through_onnx, strict=True):
        assert one.objectives[-1] > one.objectives[0] + 5
        # The two round differently, and an ascent widens what they differ by: less than a hundredth after 10 steps.
        np.testing.assert_allclose(one.objectives, other.objectives, rtol=0.01, atol=0.05)
        assert np.abs(one.pixels.astype(int) - other.pixels).mean() < 2


def test_images_are_made_through_a_keras_model_which_comes_back_as_it_was():
    model = small()
    network = open_keras(model)
    before = [variable.numpy().copy() for variable in model.weights]
    flags = [variable.value.requires_grad for variable in model.variables]
    values = [variable.value.data_ptr() for variable in model.variables]
    first = forward(network, images())
    units = [
        "class:3",
        "first:2",
        "branch/conv:1",
        "branch/silu:4@3,2",
        "mean(second:5)",
        "branch",
        "class:0 - class:1",
    ]
    result = phosphene.ascend(network, units, quick(15))
    for picture in result:
        assert picture.scores["objective"] > picture.objectives[0], picture
    assert all((variable.numpy() == value).all() for variable, value in zip(model.weights, before, strict=True))
    assert [variable.value.requires_grad for variable in model.variables] == flags
    assert [variable.value.data_ptr() for variable in model.variables] == values
    assert not any(layer._forward_hooks for layer in network.module.modules())
    assert torch.equal(forward(network, images()), first)


def test_rows_do_not_depend_on_each_other():
    network = open_keras(small())
    together = phosphene.ascend(network, ["class:1", "second:3"], quick(10), seed=[1, 2])
    (alone,) = phosphene.ascend(network, "second:3", quick(10), seed=2)
    assert np.abs(alone.pixels.astype(int) - together[1].pixels).max() <= 1


def test_layers_are_keras_names_with_channels_first():
    by_name = {layer.name: layer for layer in open_keras(small()).layers}
    assert list(by_name) == [
        *("first", "norm", "pool", "branch/conv", "branch/silu", "branch", "second", "relu", "mean", "drop", "top"),
    ]
    assert by_name["first"].shape == (8, 32, 32)
    assert by_name["branch/conv"].shape == (6, 16, 16)
    assert by_name["top"].shape == (5,)
    assert by_name["first"].type == "Conv2D"


def test_layers_with_an_activation_in_them_are_worth_showing():
    shown = [layer.name for layer in open_keras(small()).layers if layer.worth_showing]
    assert shown == ["first", "branch/silu", "relu"]


def test_every_weight_is_counted_once():
    model = small()
    network = open_keras(model)
    assert network.parameters == model.count_params()
    assert len(list(network.module.parameters())) == len(model.weights) == len(network.module.state_dict())
    digest = network.digest
    assert open_keras(small()).digest == digest  # whatever number Keras gives to the layers of this process
    model.get_layer("branch").get_layer("conv").kernel.assign_add(np.ones((3, 3, 8, 6)))
    assert open_keras(model).digest != digest


def test_a_layer_can_be_read_without_running_the_rest():
    network = open_keras(small())
    assert network.classes == 5
    seen = {}
    with network.borrowed():
        network.read(images(), {"branch/silu": lambda tensor: seen.update(map=tensor)})
        whole = network.forward(images(), {"branch/silu": lambda tensor: seen.update(again=tensor)})
    assert seen["map"].shape == (2, 6, 16, 16)
    assert torch.equal(seen["map"], seen["again"])
    assert whole.shape == (2, 5)


@pytest.mark.parametrize("top", ["dense", "activation", "softmax", "reshaped"])
def test_logits_come_from_before_the_softmax(top):
    model = small(top)
    network = open_keras(model)
    pixels = images()
    probabilities = network.module(network.preprocessing(pixels)).detach()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2))
    logits = forward(network, pixels)
    torch.testing.assert_close(logits.softmax(1), probabilities)
    torch.testing.assert_close(logits, forward(open_keras(small("none")), pixels))
    assert network.classes == 5


@pytest.mark.parametrize("top", ["dense", "reshaped"])
def test_a_pass_is_freed_with_its_logits(top):
    network = open_keras(small(top))
    seen = []
    gc.collect()
    gc.disable()
    try:
        with network.borrowed():
            logits = network.forward(images().requires_grad_(), {"first": lambda tensor: seen.append(tensor)})
            first = weakref.ref(seen.pop())
            assert logits.requires_grad
            del logits
            assert first() is None
    finally:
        gc.enable()


def test_channels_first_models_are_read_as_they_are():
    model = small(order="channels_first")
    network = open_keras(model)
    assert network.preprocessing.layout == "NCHW"
    assert network.layer("first").shape == (8, 32, 32)
    last = small(nested=False)
    last.set_weights(model.get_weights())
    torch.testing.assert_close(forward(network, images()), forward(open_keras(last), images()), atol=1e-5, rtol=1e-4)


def test_images_of_other_sizes_are_taken_where_nothing_in_the_model_forbids_it(saved, tmp_path):
    network = open_keras(saved / "small.keras")
    assert not network.preprocessing.fixed_size
    assert network.with_input_size((48, 40)).layer("first").shape == (8, 48, 40)
    # As it was saved, a model of Keras takes its own size alone.
    own = keras.models.load_model(saved / "small.keras", compile=False)
    torch.testing.assert_close(forward(network, images()), forward(open_keras(own), images()), atol=1e-6, rtol=1e-5)
    assert open_keras(own).preprocessing.fixed_size

    inputs = keras.Input((16, 16, 3))
    flat = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Conv2D(2, 3)(inputs))))
    flat.save(tmp_path / "flat.keras")
    network = open_keras(tmp_path / "flat.keras")
    assert network.preprocessing.fixed_size
    with pytest.raises(InputError, match="takes 16x16 pixels only"):
        network.with_input_size((20, 20))


def test_sequential_models_open_and_others_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((12, 10, 1)), layers.Conv2D(4, 3, name="only"), layers.GlobalMaxPooling2D()])
    network = open_keras(model)
    assert network.preprocessing.size == (12, 10)
    assert network.preprocessing.channels == 1
    assert network.layers[0].name == "only"
    model.save(tmp_path / "sequence.keras")
    torch.testing.assert_close(
        open_keras(tmp_path / "sequence.keras").module(torch.ones(1, 12, 10, 1)),
        network.module(torch.ones(1, 12, 10, 1)),
    )
    with pytest.raises(InputError, match="expected a Functional or a built Sequential model"):
        open_keras(keras.Sequential([layers.Conv2D(4, 3)]))
    with pytest.raises(InputError, match="expected one, of images"):
        open_keras(keras.Sequential([keras.Input((7,)), layers.Dense(2)]))
    first, second = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    with pytest.raises(InputError, match="expected one, of images"):
        open_keras(keras.Model([first, second], layers.Add()([first, second])))
    with pytest.raises(InputError, match="put its weights into it in Python"):
        open_keras(model, pretrained=False)
    with pytest.raises(InputError, match=r"expected a keras\.Model"):
        open_keras(torch.nn.Linear(2, 2))


# Files


@pytest.mark.parametrize("name", ["small.keras", "small.h5"])
def test_both_formats_open_as_they_were_saved(saved, name):
    network = open_keras(saved / name)
    assert network.name == "small"
    assert network.digest == open_keras(small()).digest
    torch.testing.assert_close(forward(network, images()), forward(open_keras(small()), images()), atol=1e-6, rtol=1e-5)
    untrained = open_keras(saved / name, pretrained=False)
    assert untrained.digest != network.digest
    again = open_keras(saved / name, weights=saved / "small.weights.h5")
    assert again.digest == network.digest


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # keras, a hundred times over
def test_weights_without_a_model_say_how_they_are_opened(saved):
    with pytest.raises(InputError, match=r"name it and give them as its weights"):
        open_keras(saved / "small.weights.h5")
    with pytest.raises(InputError, match="are not those of MobileNet: "):
        open_keras("MobileNet", saved / "small.weights.h5")
    with pytest.raises(InputError, match=r"expected \.h5, \.weights\.h5 or \.keras"):
        open_keras("MobileNet", saved / "small.bin")
    with pytest.raises(InputError, match="there is no such file"):
        open_keras("MobileNet", saved / "none.h5")
    with pytest.raises(InputError, match="there is no such file"):
        open_keras(saved / "none.keras")


def with_config(source, target, change):
    """A copy of a model's file with another description of the model."""
    if source.suffix == ".h5":
        target.write_bytes(source.read_bytes())
        with h5py.File(target, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            file.attrs["model_config"] = json.dumps(change(config))
        return target
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, json.dumps(change(json.loads(data))) if name == "config.json" else data)
    return target


def layer_of(config, name):
    return next(layer for layer in config["config"]["layers"] if layer["config"]["name"] == name)


@pytest.mark.parametrize("name", ["small.keras", "small.h5"])
def test_what_keras_2_wrote_otherwise_is_understood(tmp_path, name):
    keras.utils.set_random_seed(5)
    inputs = keras.Input((16, 16, 3))
    maps = layers.BatchNormalization(name="conv1_bn")(layers.DepthwiseConv2D(3, name="conv1_conv")(inputs))
    maps = layers.SeparableConv2D(4, 3, name="separable")(maps)
    maps = layers.Conv2DTranspose(4, 3, name="transposed")(maps)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(maps))
    model.save(tmp_path / name)

    def as_keras_2(config):
        text = json.dumps(config).replace('"conv1_conv"', '"conv1/conv"').replace('"conv1_bn"', '"conv1/bn"')
        config = json.loads(text)
        if "module" in config:
            config["module"] = "keras.src.engine.functional"
        layer_of(config, "conv1/bn")["config"]["axis"] = [3]
        layer_of(config, "transposed")["config"]["groups"] = 1
        for layer in ("conv1/conv", "separable"):
            old = {"groups": 1, "kernel_initializer": None, "kernel_regularizer": None, "kernel_constraint": None}
            layer_of(config, layer)["config"].update(old)
        initializer = {"module": "tensorflow.python.ops.init_ops_v2", "class_name": "Constant", "config": {"value": 0}}
        if "module" in config:
            layer_of(config, "transposed")["config"]["bias_initializer"] = initializer
        return config

    network = open_keras(with_config(tmp_path / name, tmp_path / f"old_{name}", as_keras_2))
    assert network.layers[0].name == "conv1_conv"
    torch.testing.assert_close(forward(network, images(size=16)), forward(open_keras(model), images(size=16)))


def test_what_a_later_keras_adds_is_let_go_where_it_is_off(saved, tmp_path):
    def with_field(value):
        def change(config):
            layer_of(config, "second")["config"]["added_later"] = value
            layer_of(config, "second")["config"]["kernel_initializer"]["config"]["added_later"] = None
            layer_of(config, "norm")["config"] |= {"renorm": False, "renorm_clipping": None, "renorm_momentum": 0.99}
            return config

        return with_config(saved / "small.keras", tmp_path / "later.keras", change)

    for value in (None, False):
        assert open_keras(with_field(value)).digest == open_keras(saved / "small.keras").digest
    with pytest.raises(InputError, match="added_later"):
        open_keras(with_field(2))


def test_nothing_in_a_file_is_run(saved, tmp_path):
    touched = tmp_path / "touched"
    path = str(touched)
    inputs = keras.Input((16, 16, 3))
    run = layers.Lambda(lambda x: (open(path, "w").close(), x)[1], output_shape=(16, 16, 3), name="run")
    model = keras.Model(inputs, layers.Conv2D(2, 3)(run(inputs)))
    for name in ("lambda.keras", "lambda.h5"):
        model.save(tmp_path / name)
        touched.unlink(missing_ok=True)
        with pytest.raises(InputError, match=r"layer 'run' is of type Lambda, which runs code") as raised:
            open_keras(tmp_path / name)
        assert "\n" not in str(raised.value)
        assert not touched.exists()

    def put(module, kind, inner=None, registered=None):
        def change(config):
            layer = layer_of(config, "relu")
            layer |= {"module": module, "class_name": kind, "registered_name": registered}
            layer["config"] |= inner or {}
            return config

        return with_config(saved / "small.keras", tmp_path / "put.keras", change)

    for arguments, refusal in {
        ("keras.layers", "TorchModuleWrapper"): "runs code",
        ("keras.layers", "TFSMLayer"): "runs code",
        ("keras.layers", "TFOpLambda"): "operation of TensorFlow",
        ("os", "system"): "not Keras's own",
        ("keras.utils", "get_file"): "not Keras's own",
        ("keras_hub.layers", "ReLU"): "not Keras's own",
        ("__main__", "Mine"): "not Keras's own",
        ("keras.layers", "Nothing"): "cannot be opened by Keras",
        ("keras.layers", "Re\nLU"): "type is no word",
        ("keras.layers", "Re\udc80"): "type is no word",
    }.items():
        with pytest.raises(InputError, match=refusal):
            open_keras(put(*arguments))
    with pytest.raises(InputError, match="not Keras's own"):
        open_keras(put("mine", "Mine", registered="mine>Mine"))
    with pytest.raises(InputError, match="it holds a __lambda__, which runs code"):
        open_keras(put("keras.layers", "ReLU", {"max_value": {"class_name": "__lambda__", "config": {"value": "x"}}}))


@keras.saving.register_keras_serializable("mine")
class Doubled(layers.Layer):
    def call(self, inputs):
        return inputs * 2


def test_a_class_that_is_registered_here_is_not_loaded_by_a_file_but_opens_as_a_model(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), Doubled(name="doubled"), layers.Conv2D(2, 3)])
    model.save(tmp_path / "mine.keras")
    with pytest.raises(InputError, match="layer 'doubled' is of type Doubled, which is not Keras's own"):
        open_keras(tmp_path / "mine.keras")
    assert open_keras(model).layer("doubled").channels == 3


@pytest.mark.parametrize("name", ["small.keras", "small.h5"])
@pytest.mark.parametrize(
    ("layer", "field", "value"),
    [("second", "filters", 10**9), ("first", "kernel_size", [10**6, 10**6]), ("top", "units", 10**15)],
)
def test_numbers_that_the_weights_do_not_bear_out_cost_no_memory(saved, tmp_path, name, layer, field, value):
    def change(config):
        layer_of(config, layer)["config"][field] = value
        return config

    with pytest.raises(InputError) as raised:
        open_keras(with_config(saved / name, tmp_path / name, change))
    assert "\n" not in str(raised.value)
    assert not isinstance(raised.value.__cause__, MemoryError)


def test_maps_too_large_to_make_are_refused(tmp_path):
    inputs = keras.Input((16, 16, 3))
    padded = layers.ZeroPadding2D(1, name="pad")(layers.Conv2D(2, 3, padding="same")(inputs))
    keras.Model(inputs, layers.GlobalAveragePooling2D()(padded)).save(tmp_path / "padded.keras")

    def change(config):
        layer_of(config, "pad")["config"]["padding"] = [[10**5, 10**5], [10**5, 10**5]]
        return config

    with pytest.raises(InputError, match="layer 'pad' gives 200016x200016x2 numbers for one image"):
        open_keras(with_config(tmp_path / "padded.keras", tmp_path / "large.keras", change))


@pytest.mark.parametrize("name", ["small.keras", "small.h5"])
def test_descriptions_of_other_things_are_refused(saved, tmp_path, name):
    for config in (
        [],
        {},
        "model",
        None,
        {"class_name": "Dense", "config": {"units": 3}},
        {"class_name": 3, "config": 4},
    ):
        with pytest.raises(InputError) as raised:
            open_keras(with_config(saved / name, tmp_path / name, lambda _, config=config: config))
        assert "\n" not in str(raised.value)
    deep: list = []
    for _ in range(500):
        deep = [deep]
    with pytest.raises(InputError):
        open_keras(with_config(saved / name, tmp_path / name, lambda config: config | {"config": deep}))


def test_archives_that_promise_too_much_are_refused(saved, tmp_path):
    with zipfile.ZipFile(saved / "small.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    bomb = members | {"model.weights.h5": members["model.weights.h5"] + bytes(1 << 26)}
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in bomb.items():
            archive.writestr(name, data)
    with pytest.raises(InputError, match="declared larger than twice the file"):
        open_keras(tmp_path / "bomb.keras")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(InputError, match=r"has no model\.weights\.h5 in it"):
        open_keras(tmp_path / "empty.keras")


def hdf5_bombs():
    def many(file):
        file.create_dataset("zeros", shape=(1 << 40,), dtype="f4", chunks=(1 << 20,), compression="gzip")

    def unallocated(file):
        file.create_dataset("zeros", shape=(1 << 18,), dtype="f4")

    def soft(file):
        file["link"] = h5py.SoftLink("/model_weights")

    def external(file):
        file["link"] = h5py.ExternalLink("/etc/passwd", "/")

    def elsewhere(file):
        file.create_dataset("away", shape=(8,), dtype="u1", external=[("/etc/passwd", 0, 8)])

    def words(file):
        file.create_dataset("words", data=["a", "b"])

    return {
        many: "declares",
        unallocated: "declared larger than it is",
        soft: "is a link",
        external: "is a link",
        elsewhere: "other files",
        words: "not numbers",
    }


@pytest.mark.parametrize(("bomb", "refusal"), hdf5_bombs().items())
def test_hdf5_that_promises_too_much_or_points_elsewhere_is_refused(saved, tmp_path, bomb, refusal):
    (tmp_path / "bomb.h5").write_bytes((saved / "small.h5").read_bytes())
    with h5py.File(tmp_path / "bomb.h5", "r+") as file:
        bomb(file)
    with pytest.raises(InputError, match=refusal):
        open_keras(tmp_path / "bomb.h5")


def test_a_file_that_hangs_hdf5_is_given_up(tmp_path, monkeypatch):
    path = tmp_path / "hangs.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "{}"
        file.flush()
        file["zeros"] = np.zeros(1 << 14)
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")  # HDF5's store of strings, whose size becomes all that follows
    data[heap + 8 : heap + 16] = (len(data) - heap).to_bytes(8, "little")
    path.write_bytes(data)
    monkeypatch.setattr(keras_files, "READING_SECONDS", 1.5)
    with pytest.raises(InputError, match="its HDF5 part is damaged"):
        open_keras(path)


@pytest.mark.parametrize("name", ["small.keras", "small.h5"])
def test_damaged_files_are_refused_in_a_sentence(saved, tmp_path, name, monkeypatch):
    monkeypatch.setattr(keras_files, "READING_SECONDS", 1.5)
    (tmp_path / name).write_bytes((saved / name).read_bytes())
    assert check_corrupted(tmp_path / name, open_keras, places=30) > 6


# Names


def test_applications_open_by_name():
    network = open_keras("mobilenet", pretrained=False)
    assert network.name == "MobileNet"
    assert network.preprocessing.value_range == (-1, 1)
    assert network.preprocessing.size == (224, 224)
    assert network.labels[130].name == "flamingo"
    assert not network.notes
    assert network.layer("conv_pw_13_relu").shape == (1024, 7, 7)
    with pytest.raises(InputError, match=r"no network 'MobilNet'; did you mean MobileNet"):
        open_keras("MobilNet")


@trained
def test_an_application_takes_the_weights_of_a_file():
    network = open_keras("MobileNet", f"{MOBILENET}.keras")
    assert network.digest == open_keras(f"{MOBILENET}.keras").digest


def test_an_application_takes_weights_without_the_classifier(tmp_path):
    keras.applications.MobileNet(weights=None, include_top=False).save_weights(tmp_path / "notop.weights.h5")
    network = open_keras("MobileNet", tmp_path / "notop.weights.h5")
    assert network.classes == 0
    assert network.layers[-1].shape == (1024, 7, 7)


def test_layers_that_keras_numbers_keep_their_names_in_a_process_with_other_models():
    for _ in range(2):
        names = [layer.name for layer in open_keras("MobileNetV3Small", pretrained=False).layers]
        assert {"re_lu", "re_lu_1", "rescaling", "logits"} < set(names)


def test_weights_that_cannot_be_had_are_asked_for(monkeypatch):
    def unreachable(*args, **kwargs):
        raise Exception("URL fetch failure on https://example.org: None -- [Errno -2] Name or service not known")

    monkeypatch.setattr(sys.modules[keras.applications.MobileNet.__module__].file_utils, "get_file", unreachable)
    with pytest.raises(InputError, match=r"weights of MobileNet cannot be had: .*\(--weights FILE\)"):
        open_keras("MobileNet")


def test_modes_of_preprocess_input_are_those_that_keras_documents():
    modes = {family: preprocessing_mode(keras, family) for family, _ in FAMILIES}
    caffe, torchs = {"vgg16", "resnet"}, {"densenet"}
    byte = {"convnext", "efficientnet", "efficientnet_v2", "mobilenet_v3"}
    for family, mode in modes.items():
        expected = "caffe" if family in caffe else "torch" if family in torchs else "byte" if family in byte else "tf"
        assert mode == expected, family


def named(*names, first=None):
    """A model of layers so called, behind `first`."""
    maps = inputs = keras.Input((8, 8, 3))
    if first is not None:
        maps = first(maps)
    for name in names:
        maps = layers.Conv2D(3, 1, name=name)(maps)
    return keras.Model(inputs, maps)


@pytest.mark.parametrize(
    ("names", "first", "low", "high", "order", "sure"),
    [
        (["block1_conv1"], None, (0, 0, 0), (255, 255, 255), "BGR", True),
        (["block1_conv1", "block2_sepconv1"], None, (-1, -1, -1), (1, 1, 1), "RGB", True),
        (["conv2_block1_1_conv"], None, (0, 0, 0), (255, 255, 255), "BGR", True),
        (["conv2_block1_preact_bn", "conv2_block1_1_conv"], None, (-1, -1, -1), (1, 1, 1), "RGB", True),
        (["conv2_block1_1_conv", "conv2_block1_concat"], None, (0, 0, 0), (1, 1, 1), "RGB", True),
        (["block1a_dwconv"], layers.Rescaling(1 / 255), (0, 0, 0), (255, 255, 255), "RGB", True),
        (["block1a_dwconv"], None, (-1, -1, -1), (1, 1, 1), "RGB", False),
        (["block_1_expand"], lambda x: x / 127.5 - 1, (0, 0, 0), (255, 255, 255), "RGB", False),
        (["any"], layers.Rescaling(2.0, -1.0), (0, 0, 0), (1, 1, 1), "RGB", True),
        (["any"], None, (0, 0, 0), (1, 1, 1), "RGB", False),
    ],
)
def test_what_a_model_eats_is_known_by_its_layers(names, first, low, high, order, sure):
    network = open_keras(named(*names, first=first))
    preprocessing = network.preprocessing
    assert preprocessing.value_range == (low[0], high[0])
    assert preprocessing.channel_order == order
    assert ("preprocessing" in network.notes) is not sure
    if order == "BGR":
        assert preprocessing.mean == (103.939, 116.779, 123.68)
    if names[-1] == "conv2_block1_concat":
        assert preprocessing.mean == (0.485, 0.456, 0.406)


def test_another_backend_is_answered_with_what_to_do(monkeypatch):
    fix = "set KERAS_BACKEND=torch in the environment before Python starts"
    with monkeypatch.context() as patch:
        patch.setattr(keras.config, "backend", lambda: "jax")
        with pytest.raises(InputError, match=f"was imported with its jax backend.*{fix}, or open the network before"):
            open_keras("MobileNet", pretrained=False)
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    with pytest.raises(InputError, match=f"KERAS_BACKEND is 'tensorflow'.*{fix}"):
        open_keras("MobileNet", pretrained=False)


# VGG of Keras 1 and 2

WIDTHS = (3, 4, 3, 4, 2, 3, 4, 3, 2, 4, 3, 2, 5)
DENSE = (7, 6, 5)
SIDE = 2  # of the last map


def old_vgg(dense=True):
    """Kernels (out, in, height, width) of a correlation, and biases; then (in, out), the map channels first."""
    random = np.random.default_rng(11)
    pairs = []
    for before, width in zip((3, *WIDTHS), WIDTHS, strict=False):
        scale = (2 / (before * 9)) ** 0.5
        pairs.append((random.normal(0, scale, (width, before, 3, 3)), random.normal(0.1, 0.1, width)))
    for before, width in zip((WIDTHS[-1] * SIDE**2, *DENSE), DENSE if dense else (), strict=False):
        pairs.append((random.normal(0, before**-0.5, (before, width)), random.normal(0, 0.1, width)))
    return [(kernel.astype("f4"), bias.astype("f4")) for kernel, bias in pairs]


def run_old_vgg(pairs, images):
    """VGG16's logits, channels first, in torch: what all the files stand for."""
    maps, kernels = images, iter(pairs)
    for depth in (2, 2, 3, 3, 3):
        for _ in range(depth):
            kernel, bias = next(kernels)
            maps = F.relu(F.conv2d(maps, torch.from_numpy(kernel), torch.from_numpy(bias), padding=1))
        maps = F.max_pool2d(maps, 2)
    vector, dense = maps.flatten(1), list(kernels)
    for index, (kernel, bias) in enumerate(dense):
        vector = vector @ torch.from_numpy(kernel) + torch.from_numpy(bias)
        vector = F.relu(vector) if index + 1 < len(dense) else vector
    return vector if dense else maps


def as_theano(pairs):
    """Mirrored, since theano convolves."""
    return [(kernel[:, :, ::-1, ::-1] if kernel.ndim == 4 else kernel, bias) for kernel, bias in pairs]


def as_tensorflow(pairs):
    result = []
    for kernel, bias in pairs:
        if kernel.ndim == 4:
            kernel = kernel.transpose(2, 3, 1, 0)
        elif kernel.shape[0] == WIDTHS[-1] * SIDE**2:
            kernel = kernel.reshape(WIDTHS[-1], SIDE, SIDE, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)
        result.append((kernel, bias))
    return result


def write_oldest(path, pairs):
    """The layout before Keras 0.3.3, in which padding, pooling and dropout are layers without parameters."""
    shape = [0, 1, 0, 1, 0] * 2 + [0, 1, 0, 1, 0, 1, 0] * 3 + ([0, 1, 0, 1, 0, 1] if len(pairs) > 13 else [])
    with h5py.File(path, "w") as file:
        file.attrs["nb_layers"] = len(shape)
        rest = iter(pairs)
        for index, has in enumerate(shape):
            group = file.create_group(f"layer_{index}")
            tensors = next(rest) if has else ()
            group.attrs["nb_params"] = len(tensors)
            for number, tensor in enumerate(tensors):
                group[f"param_{number}"] = tensor


def write_named(path, pairs, backend=None):
    """The layout from Keras 1.0 on."""
    blocks = [
        f"block{block}_conv{index + 1}" for block, depth in enumerate((2, 2, 3, 3, 3), 1) for index in range(depth)
    ]
    names = [*blocks, "fc1", "fc2", "predictions"][: len(pairs)]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in ["input_1", *names, "block5_pool"]]
        if backend:
            file.attrs["backend"] = backend.encode()
        for name in ("input_1", "block5_pool"):
            file.create_group(name).attrs["weight_names"] = np.array([], "S1")
        for name, (kernel, bias) in zip(names, pairs, strict=True):
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}_W_1:0".encode(), f"{name}_b_1:0".encode()]
            group[f"{name}_W_1:0"], group[f"{name}_b_1:0"] = kernel, bias


OLD = {
    "oldest": lambda path, pairs: write_oldest(path, as_theano(pairs)),
    "th_kernels": lambda path, pairs: write_named(path, as_theano(pairs)),
    "tf_kernels": lambda path, pairs: write_named(path, as_tensorflow(pairs)),
    "th_kernels on tensorflow": lambda path, pairs: write_named(path, pairs, "tensorflow"),
    "tf_kernels on theano": lambda path, pairs: write_named(path, as_tensorflow(as_theano(pairs)), "theano"),
}


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("layout", OLD)
def test_old_vgg_files_give_what_their_weights_stand_for(tmp_path, layout, dense):
    pairs = old_vgg(dense)
    path = tmp_path / "vgg16_weights.h5"
    OLD[layout](path, pairs)
    assert is_old_vgg(path)
    size = 32 * SIDE
    for network in (open_keras(path), open_keras("VGG16", path)):
        preprocessing = network.preprocessing
        assert preprocessing.channel_order == "BGR"
        assert preprocessing.mean == (103.939, 116.779, 123.68)
        assert "preprocessing" not in network.notes
        assert network.layer("block5_conv3").channels == WIDTHS[-1]
        assert network.classes == (DENSE[-1] if dense else 0)
        assert preprocessing.fixed_size is dense
        assert preprocessing.size == ((size, size) if dense else (224, 224))
    pixels = images(size=size)
    inputs = pixels.flip(1) - torch.tensor([103.939, 116.779, 123.68]).view(-1, 1, 1)
    expected = run_old_vgg(pairs, inputs)
    assert expected.std() > 0.1
    torch.testing.assert_close(forward(network, pixels), expected, atol=1e-3, rtol=1e-4)


def test_theano_convolves():
    """What the mirrored kernels are taken for: a convolution by its definition gives what the reader's kernels give."""
    signal = pytest.importorskip("scipy.signal")
    kernel, image = old_vgg()[0][0], images(1, size=9)[0].numpy()
    convolved = sum(signal.convolve2d(image[c], as_theano([(kernel, None)])[0][0][0, c], "same") for c in range(3))
    correlated = F.conv2d(torch.from_numpy(image)[None], torch.from_numpy(kernel), padding=1)[0, 0]
    np.testing.assert_allclose(convolved, correlated, rtol=1e-3, atol=1e-2)


def test_old_weights_are_laid_out_for_keras_3(tmp_path):
    pairs = old_vgg()
    for name, write in OLD.items():
        write(tmp_path / "old.h5", pairs)
        weights = read_old_weights(tmp_path / "old.h5")
        for read, written in zip([*weights.convolutions, *weights.dense], as_tensorflow(pairs), strict=True):
            for one, other in zip(read, written, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=name)


def test_vgg_files_of_other_shapes_are_refused(tmp_path):
    pairs = old_vgg()
    path = tmp_path / "vgg.h5"
    write_named(path, pairs)
    with pytest.raises(InputError, match="those of VGG16, and not of VGG19"):
        open_keras("VGG19", path)
    wrong = copy.deepcopy(pairs)
    wrong[4] = (np.zeros((2, 9, 3, 3), "f4"), np.zeros(2, "f4"))
    write_oldest(path, wrong)
    with pytest.raises(InputError, match="gives 4 channels, and the next one takes 9"):
        open_keras(path)
    wrong = copy.deepcopy(pairs)
    wrong[13] = (np.zeros((21, 7), "f4"), np.zeros(7, "f4"))
    write_oldest(path, wrong)
    with pytest.raises(InputError, match="reads 21 numbers, and no square map"):
        open_keras(path)
    write_named(path, pairs[:12])
    assert not is_old_vgg(path)
    with pytest.raises(InputError, match="holds weights without their model"):
        open_keras(path)


def test_damaged_vgg_files_are_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(keras_files, "READING_SECONDS", 1.5)
    write_oldest(tmp_path / "vgg16_weights.h5", as_theano(old_vgg()))
    assert check_corrupted(tmp_path / "vgg16_weights.h5", open_keras, places=30) > 10


def test_a_file_in_memory_is_no_source():
    with pytest.raises(InputError, match=r"expected a keras\.Model"):
        open_keras(io.BytesIO())
