"""Networks from ONNX files: the same numbers as onnxruntime, from any exporter, at any batch, or a sentence."""

from __future__ import annotations

import logging
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from corruption import check_corrupted
from helpers import SHARED, seeded
from torch import nn

import phosphene
from phosphene import InputError, Network
from phosphene.networks.sources.onnx.model import open_onnx

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx2pytorch")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

MOBILENET = SHARED / "weights" / "mobilenet_v1.onnx"
FLOAT = TensorProto.FLOAT


def agrees(network: Network, path: Path, one_by_one: bool = False) -> None:
    """The logits of three images, all at once, are those of onnxruntime."""
    session = ort.InferenceSession(str(path))
    name, shape = session.get_inputs()[0].name, session.get_inputs()[0].shape
    preprocessing = network.preprocessing
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(3, preprocessing.channels, *preprocessing.size, generator=generator)
    fed = (inputs.permute(0, 2, 3, 1) if shape[3] == preprocessing.channels else inputs).numpy()
    batches = np.split(fed, 3) if one_by_one else [fed]
    expected = np.concatenate([session.run(None, {name: batch})[0] for batch in batches])
    with network.borrowed(), torch.no_grad():
        logits = network.module(inputs)
    torch.testing.assert_close(logits, torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def export(module: nn.Module, path: Path, size: int, dynamo: bool, dynamic: bool, opset: int) -> Path:
    pytest.importorskip("onnxscript")
    options: dict[str, object] = {"external_data": False, "verbose": False} if dynamo else {}
    if dynamic:
        options |= (
            {"dynamic_shapes": ({0: torch.export.Dim("n")},)} if dynamo else {"dynamic_axes": {"image": {0: "n"}}}
        )
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                *(module.eval(), (torch.zeros(1, 3, size, size),), str(path)),
                **{"input_names": ["image"], "dynamo": dynamo, "opset_version": opset},
                **options,
            )
    finally:
        logging.disable(logging.NOTSET)
    return path


EXPORTS = {
    "resnet": ("test_resnet", False, True, 17),
    "efficientnet": ("test_efficientnet", False, True, 11),
    "efficientnet_one": ("test_efficientnet", True, False, 18),
    "vit": ("test_vit", False, True, 17),
    "vit_one": ("test_vit", False, False, 14),
    "vit_new": ("test_vit", True, True, 20),
    "vit_attention": ("test_vit", True, False, 23),
    "convnext_one": ("test_convnext", True, False, 18),
}


def exported_as(*keys: str) -> pytest.MarkDecorator:
    """Torch's newer exporter takes seconds."""
    return pytest.mark.parametrize(
        "key", [pytest.param(key, marks=pytest.mark.slow) if EXPORTS[key][1] else key for key in keys]
    )


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("onnx")

    def get(key: str) -> Path:
        path = folder / f"{key}.onnx"
        if not path.exists():
            name, dynamo, dynamic, opset = EXPORTS[key]
            module = seeded(timm.create_model, name)
            for parameter in module.parameters():  # some start at zero, which would hide what they belong to
                if parameter.ndim == 1:
                    parameter.data += 0.1 * torch.randn(
                        parameter.shape, generator=torch.Generator().manual_seed(len(parameter))
                    )
            export(module, path, 160, dynamo, dynamic, opset)
        return path

    return get


@pytest.fixture(scope="session")
def opened_export(exported):
    return lru_cache(lambda key: open_onnx(exported(key)))


@exported_as(*EXPORTS)
def test_exported_networks_give_the_logits_of_onnxruntime(exported, opened_export, key: str) -> None:
    agrees(opened_export(key), exported(key), one_by_one=not EXPORTS[key][2])


@pytest.mark.parametrize(
    ("key", "layers", "marks", "fixed"),
    [
        ("resnet", {"conv1.0": "Conv2d", "layer2.0.act2": "ReLU", "fc": "Linear"}, "ReLU", False),
        ("efficientnet", {"conv_stem": "Conv2d", "blocks.2.0.bn1.act": "SiLU", "classifier": "Linear"}, "SiLU", False),
        pytest.param(
            "efficientnet_one",
            {"conv_stem": "Conv2d", "blocks.2.0.bn1.act": "SiLU"},
            "SiLU",
            False,
            marks=pytest.mark.slow,
        ),
        (
            "vit",
            {"patch_embed.proj": "Conv2d", "blocks.1.attn.qkv": "Linear", "blocks.1.mlp.act": "GELU"},
            "GELU",
            True,
        ),
        ("vit_one", {"blocks.1.attn.qkv": "Linear", "blocks.1.mlp.act": "GELU"}, "GELU", True),
        pytest.param(
            "vit_new",
            {"blocks.1.attn.qkv": "Linear", "blocks.1.mlp.act": "GELU"},
            "GELU",
            True,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_layers_are_called_as_in_the_network_that_was_exported(
    opened_export, key: str, layers: dict[str, str], marks: str, fixed: bool
) -> None:
    network = opened_export(key)
    types = {layer.name: layer.type for layer in network.layers}
    assert layers.items() <= types.items()
    assert len(types) == len(network.layers)
    assert {layer.type for layer in network.layers if layer.worth_showing} == {marks}
    assert network.preprocessing.fixed_size == fixed
    assert network.preprocessing.size == (160, 160)
    assert network.labels == phosphene.networks.labels.imagenet_labels()
    assert set(network.notes) - {"tokens"} == {"preprocessing", "labels"}
    assert ("tokens" in network.notes) == key.startswith("vit")  # guessed: an export has no names for them


@pytest.mark.slow
def test_the_same_modules_are_worth_showing_as_in_torch(opened_export) -> None:
    module = phosphene.open("test_vit", pretrained=False)
    network = opened_export("vit_new")
    for name in ("blocks.0.mlp.act", "blocks.5.mlp.act", "blocks.3.attn.qkv", "blocks.2.mlp.fc1"):
        ours, theirs = network.layer(name), module.layer(name)
        assert (ours.shape, ours.worth_showing, ours.parameters) == (
            theirs.shape,
            theirs.worth_showing,
            theirs.parameters,
        )


@exported_as("efficientnet_one", "vit_one")
def test_gradients_reach_the_pixels_of_each_image(opened_export, key: str) -> None:
    network = opened_export(key)
    pixels = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0)) * 255
    pixels.requires_grad_()
    with network.borrowed():
        network.forward(pixels)[0, 3].backward()
    assert pixels.grad[0].abs().max() > 0
    assert pixels.grad[1].abs().max() == 0


@pytest.mark.slow
def test_layers_are_read_as_they_are_for_each_image(opened_export) -> None:
    network = opened_export("efficientnet_one")
    pixels = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0)) * 255
    read: dict[str, torch.Tensor] = {}
    names = [network.layer(name).name for name in ("conv_stem", "bn1.act")]
    with network.borrowed(), torch.no_grad():
        network.forward(pixels, {name: lambda tensor, name=name: read.setdefault(name, tensor) for name in names})
    assert [len(read[name]) for name in names] == [2, 2]
    assert read["conv_stem"].min() < -0.3  # what comes before an activation is not changed by it
    torch.testing.assert_close(nn.SiLU()(read["conv_stem"]), read["bn1.act"])


@pytest.mark.slow
@pytest.mark.skipif(not MOBILENET.is_file(), reason="needs ../shared")
def test_trained_mobilenet() -> None:
    network = open_onnx(MOBILENET)
    agrees(network, MOBILENET)
    assert network.layer("conv14_pw_relu").type == "ReLU6"
    assert sum(layer.worth_showing for layer in network.layers) == 27
    assert network.classes == 1000
    assert network.with_input_size((128, 128)).classes == 1000
    assert "doctor" in network.notes["preprocessing"]
    assert "mobilenet_v1.toml" in network.notes["preprocessing"]


# Graphs made by hand


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32) / 4


def save(
    path: Path,
    nodes: list[object],
    constants: dict[str, np.ndarray],
    shape: tuple[object, ...] = ("n", 3, 24, 24),
    classes: int = 5,
    opset: int = 17,
    **kwargs: object,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", FLOAT, shape)],
        [helper.make_tensor_value_info("out", FLOAT, [shape[0], classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)], ir_version=10
    )
    onnx.save(model, path, **kwargs)
    return path


CONSTANTS = {"w": weights(8, 3, 3, 3), "b": weights(8), "v": weights(8, 5), "c": weights(5)}


def small(path: Path, middle: list[object] | None = None, end: str = "out", **kwargs: object) -> Path:
    """Convolution, activation, mean, linear: `middle` goes from "conv" to "active"."""
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "w", "b"], ["conv"], "conv", pads=[1, 1, 1, 1]),
        *(middle or [node("Relu", ["conv"], ["active"], "active")]),
        node("GlobalAveragePool", ["active"], ["pool"], "pool"),
        node("Flatten", ["pool"], ["flat"], "flat"),
        node("Gemm", ["flat", "v", "c"], [end], "head"),
    ]
    if end != "out":
        nodes.append(node("Softmax", [end], ["out"], "probabilities"))
    return save(path, nodes, CONSTANTS | kwargs.pop("constants", {}), **kwargs)


def test_unknown_operators_are_named(tmp_path: Path) -> None:
    unknown = [helper.make_node("NonZero", ["conv"], ["active"], "odd/one")]
    with pytest.raises(InputError, match=r"net\.onnx: node 'odd/one' is a NonZero"):
        open_onnx(small(tmp_path / "net.onnx", unknown))
    foreign = [helper.make_node("Relu", ["conv"], ["active"], "odd", domain="com.example")]
    with pytest.raises(InputError, match=r"'odd' is a com\.example\.Relu"):
        open_onnx(small(tmp_path / "net.onnx", foreign))


def node(operator: str, *inputs: str, name: str, **attributes: object) -> object:
    return helper.make_node(operator, list(inputs), [name], name, **attributes)


PIECES = {
    "relu6": [node("Clip", "conv", "zero", "six", name="active")],
    "silu": [node("Sigmoid", "conv", name="gate"), node("Mul", "gate", "conv", name="active")],
    "gelu": [
        *(node("Div", "conv", "root", name="a"), node("Erf", "a", name="e"), node("Add", "e", "one", name="p")),
        *(node("Mul", "conv", "p", name="m"), node("Mul", "m", "half", name="active")),
    ],
    "hardswish": [
        *(node("Add", "conv", "three", name="p"), node("Clip", "p", "zero", "six", name="g")),
        *(node("Mul", "conv", "g", name="m"), node("Div", "m", "six", name="active")),
    ],
    "mish": [
        *(node("Softplus", "conv", name="s"), node("Tanh", "s", name="t")),
        node("Mul", "conv", "t", name="active"),
    ],
    "relu": [node("Max", "conv", "zero", name="active")],
    None: [node("Sigmoid", "conv", name="gate"), node("Mul", "gate", "half", name="active")],
}
SCALARS = {"zero": 0.0, "six": 6.0, "one": 1.0, "half": 0.5, "three": 3.0, "root": 2**0.5}


@pytest.mark.parametrize("activation", PIECES)
def test_activations_in_pieces_are_put_together(tmp_path: Path, activation: str | None) -> None:
    constants = {name: np.array(value, np.float32) for name, value in SCALARS.items()}
    path = small(tmp_path / "net.onnx", PIECES[activation], constants=constants)
    network = open_onnx(path)
    agrees(network, path)
    marked = [layer.type.lower() for layer in network.layers if layer.worth_showing]
    assert marked == [activation] * (activation is not None)


def test_names_are_made_fit_for_modules(tmp_path: Path) -> None:
    given = ["training", "forward", "a/b c", "a/b c", "a", "", "x.0", "x.0.y"]
    values = ["conv", *(f"v{index}" for index in range(len(given) - 1)), "active"]
    middle = [
        helper.make_node("LeakyRelu", [before], [after], name)
        for before, after, name in zip(values, values[1:], given, strict=False)
    ]
    network = open_onnx(small(tmp_path / "net.onnx", middle))
    names = [layer.name for layer in network.layers if layer.type == "LeakyReLU"]
    same = ["a.b_c.LeakyRelu", "a.b_c.LeakyRelu_2"]
    assert names == ["training_", "forward_", *same, "a.LeakyRelu", "v5", "x.LeakyRelu_0", "x.0.y"]


def test_channels_last(tmp_path: Path) -> None:
    transposed = helper.make_node("Transpose", ["image"], ["first"], "transpose", perm=[0, 3, 1, 2])
    path = small(tmp_path / "net.onnx", shape=("n", 24, 32, 3))
    model = onnx.load(path)
    model.graph.node[0].input[0] = "first"
    model.graph.node.insert(0, transposed)
    onnx.save(model, path)
    network = open_onnx(path)
    agrees(network, path)
    assert network.preprocessing.size == (24, 32)
    assert network.preprocessing.layout == "NCHW"
    assert network.layer("active").shape == (8, 24, 32)


def test_a_final_softmax_is_left_out(tmp_path: Path) -> None:
    with_end, without = small(tmp_path / "a.onnx", end="logits"), small(tmp_path / "b.onnx")
    agrees(open_onnx(with_end), with_end)
    pixels = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 255
    networks = [open_onnx(path) for path in (with_end, without)]
    assert [network.ending for network in networks] == [("softmax", 0), None]
    torch.testing.assert_close(*(network.forward(pixels) for network in networks))


def test_sizes_that_the_file_does_not_say(tmp_path: Path) -> None:
    network = open_onnx(small(tmp_path / "net.onnx", shape=("n", 3, "h", "w")))
    assert (network.preprocessing.size, network.preprocessing.fixed_size) == ((224, 224), False)
    nodes = [node("Flatten", "image", name="flat"), node("MatMul", "flat", "v", name="out")]
    path = save(tmp_path / "flat.onnx", nodes, {"v": weights(3 * 32 * 32, 5)}, shape=("n", 3, "h", "w"))
    network = open_onnx(path)
    assert (network.preprocessing.size, network.preprocessing.fixed_size) == ((32, 32), True)


def test_a_network_of_one_channel(tmp_path: Path) -> None:
    nodes = [node("Flatten", "image", name="flat"), node("MatMul", "flat", "v", name="out")]
    path = save(tmp_path / "net.onnx", nodes, {"v": weights(64, 5)}, shape=("n", 1, 8, 8))
    network = open_onnx(path)
    agrees(network, path)
    assert network.preprocessing.channels == 1
    assert set(network.notes) == {"preprocessing"}


def test_a_batch_of_one_written_into_the_graph(tmp_path: Path) -> None:
    middle = [
        *(node("Reshape", "conv", "split", name="r"), node("Transpose", "r", name="t", perm=[0, 2, 1, 3, 4])),
        node("Reshape", "t", "back", name="active"),
    ]
    shapes = {"split": np.array([1, 2, 4, 24, 24]), "back": np.array([1, 8, 24, 24])}
    path = small(tmp_path / "net.onnx", middle, shape=(1, 3, 24, 24), constants=shapes)
    agrees(open_onnx(path), path, one_by_one=True)


def test_rows_that_cannot_be_independent_are_refused(tmp_path: Path) -> None:
    middle = [
        helper.make_node("ReduceMean", ["conv"], ["m"], "mean", axes=[0]),
        node("Add", "conv", "m", name="active"),
    ]
    with pytest.raises(InputError, match="depends on the others of a batch"):
        open_onnx(small(tmp_path / "net.onnx", middle))
    normal = {"s": weights(8), "var": np.ones(8, np.float32)}
    middle = [
        helper.make_node(
            "BatchNormalization", ["conv", "s", "s", "s", "var"], ["active", "x", "y"], "norm", training_mode=1
        )
    ]
    with pytest.raises(InputError, match=r"node 'norm' \(BatchNormalization\) is in training mode"):
        open_onnx(small(tmp_path / "net.onnx", middle, constants=normal))


def test_weights_in_a_file_beside_it(tmp_path: Path) -> None:
    options = {"save_as_external_data": True, "location": "net.data", "size_threshold": 0}
    path = small(tmp_path / "net.onnx", **options)
    agrees(open_onnx(path), path)
    data = tmp_path / "net.data"
    data.write_bytes(data.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"'net\.data', with weights of net\.onnx, is truncated"):
        open_onnx(path)
    data.unlink()
    with pytest.raises(InputError, match=r"in 'net\.data', and there is no such file"):
        open_onnx(path)


@pytest.mark.parametrize("location", ["../net.data", "/etc/hostname", "sub/../../net.data"])
def test_weights_outside_its_folder_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = small(folder / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    (folder / "net.data").rename(tmp_path / "net.data")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="expected a file beside it"):
        open_onnx(path)


HUGE = {
    "shape": [
        *(node("ConstantOfShape", "huge", name="full"), node("ReduceMax", "full", name="top", keepdims=0)),
        node("Add", "conv", "top", name="active"),
    ],
    "expand": [
        *(node("Expand", "b", "wide", name="full"), node("ReduceMax", "full", name="top", keepdims=0)),
        node("Add", "conv", "top", name="active"),
    ],
    "pad": [
        helper.make_node(
            "MaxPool",
            ["conv"],
            ["active"],
            "huge",
            kernel_shape=[3, 3],
            pads=[0, 0, 2**20, 2**20],
            strides=[2**19, 2**19],
        )
    ],
    "resize": [
        node(
            "Resize",
            "conv",
            "",
            "scales",
            name="active",
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    ],
}


@pytest.mark.parametrize("kind", HUGE)
def test_what_would_take_too_much_memory_is_refused(tmp_path: Path, kind: str) -> None:
    constants = {
        "huge": np.array([8, 2**14, 2**14]),
        "wide": np.array([2**14, 2**14, 8]),
        "scales": np.array([1, 1, 2**12, 2**12], np.float32),
    }
    with pytest.raises(InputError, match=r"node '(full|huge|active)' \(\w+\) would take [\d,]+ numbers for one image"):
        open_onnx(small(tmp_path / "net.onnx", HUGE[kind], constants=constants))


def test_files_that_are_no_networks(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(InputError, match="there is no such file"):
        open_onnx(path)
    path.write_bytes(b"no onnx at all")
    with pytest.raises(InputError, match="it is damaged, or no ONNX file"):
        open_onnx(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is no valid ONNX file"):
        open_onnx(path)
    nodes = [node("Identity", "image", name="out")]
    with pytest.raises(InputError, match=r"takes nx7 \(FLOAT\)|takes \?x7 \(FLOAT\)"):
        open_onnx(save(path, nodes, {}, shape=("n", 7)))
    with pytest.raises(InputError, match="takes 1x3x100000x24: expected images of 1 to 4096 pixels"):
        open_onnx(small(path, shape=(1, 3, 100000, 24)))


def test_damaged_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    path = small(tmp_path / "net.onnx", PIECES["silu"])
    assert check_corrupted(path, open_onnx) > 40
    options = {"save_as_external_data": True, "location": "net.data", "size_threshold": 0}
    assert check_corrupted(small(tmp_path / "out.onnx", **options), open_onnx, places=60) > 20


def test_random_numbers_are_left_alone(tmp_path: Path) -> None:
    path = small(tmp_path / "net.onnx")
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    open_onnx(path)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("key", "layer"),
    [
        ("vit_one", "blocks.1.mlp.act"),
        pytest.param("efficientnet_one", "blocks.2.0.bn1.act", marks=pytest.mark.slow),
    ],
)
def test_ascent_on_exported_networks(opened_export, key: str, layer: str) -> None:
    recipe = phosphene.Recipe.load("clip").override({"steps": 2})
    result = phosphene.ascend(opened_export(key), ["class:teddy", f"{layer}:5"], recipe)
    assert [picture.steps for picture in result] == [2, 2]


def outputs_of(path: Path, ends: list[object], names: dict[str, tuple[int, object]], **kwargs: object) -> Path:
    """The small network, with further nodes behind its logits "z", and outputs of a kind and a shape."""
    small(path, end="z", **kwargs)
    model = onnx.load(path)
    del model.graph.node[-1]  # the softmax
    model.graph.node.extend(ends)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, kind, axes) for name, (kind, axes) in names.items())
    onnx.save(model, path)
    return path


def test_side_outputs_do_not_hinder_and_the_classes_are_found(tmp_path: Path) -> None:
    ends = [
        helper.make_node("ArgMax", ["z"], ["best"], axis=1),
        helper.make_node("TopK", ["z", "k"], ["top", "at"], "topk"),
        helper.make_node("Softmax", ["z"], ["probabilities"]),
        helper.make_node("Identity", ["z"], ["logits"]),
        helper.make_node("Relu", ["flat"], ["features"]),
    ]
    names = {
        "best": (TensorProto.INT64, ("n", 1)), "top": (FLOAT, ("n", 2)), "features": (FLOAT, ("n", 8)),
        "probabilities": (FLOAT, ("n", 5)), "active": (FLOAT, ("n", 8, 24, 24)), "logits": (FLOAT, ("n", 5)),
    }  # fmt: skip
    path = outputs_of(tmp_path / "net.onnx", ends, names, constants={"k": np.array([2])})
    network = open_onnx(path)
    assert network.classes == 5
    assert network.ending is None
    assert "'logits' is taken for that of the classes" in network.notes["output"]
    image = torch.randn(1, 3, 24, 24)
    with network.borrowed(), torch.no_grad():
        given = network.module(image)
    assert list(given) == ["logits", "probabilities", "features", "active"]
    expected = ort.InferenceSession(str(path)).run(list(given), {"image": image.numpy()})
    for found, value in zip(given.values(), expected, strict=True):
        torch.testing.assert_close(found, torch.from_numpy(value), rtol=1e-4, atol=1e-4)
    path = outputs_of(
        path, ends[:3], {name: names[name] for name in ("best", "probabilities")}, constants={"k": np.array([2])}
    )
    assert open_onnx(path).ending == ("softmax", 0)


def test_a_final_sigmoid_is_left_out(tmp_path: Path) -> None:
    path = outputs_of(tmp_path / "net.onnx", [helper.make_node("Sigmoid", ["z"], ["y"])], {"y": (FLOAT, ("n", 5))})
    network = open_onnx(path)
    without = open_onnx(small(tmp_path / "without.onnx"))
    pixels = torch.rand(2, 3, 24, 24) * 255
    torch.testing.assert_close(network.forward(pixels), without.forward(pixels))
    assert (network.ending.kind, network.kind) == ("sigmoid", "sigmoid")
    expected = network.module(network.preprocessing(pixels))
    torch.testing.assert_close(network.probabilities(network.forward(pixels)), expected)


def test_outputs_that_cannot_be_shown_are_named(tmp_path: Path) -> None:
    argmax = [helper.make_node("ArgMax", ["z"], ["best"], "best", axis=1)]
    with pytest.raises(InputError, match=r"'best' is a ArgMax, .*; export the network without it, up to 'z'"):
        open_onnx(outputs_of(tmp_path / "net.onnx", argmax, {"best": (TensorProto.INT64, ("n", 1))}))
    cast = [helper.make_node("Cast", ["z"], ["whole"], to=TensorProto.INT64)]
    with pytest.raises(InputError, match="gives INT64 only, which has no slope"):
        open_onnx(outputs_of(tmp_path / "net.onnx", cast, {"whole": (TensorProto.INT64, ("n", 5))}))


def test_maps_open_for_their_layers(tmp_path: Path) -> None:
    network = open_onnx(outputs_of(tmp_path / "net.onnx", [], {"active": (FLOAT, ("n", 8, 24, 24))}))
    assert (network.classes, network.layers[-1].name) == (0, "active")
    assert "no classes" in network.notes["output"]


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.FLOAT])
def test_channels_last_as_they_come(tmp_path: Path, kind: int) -> None:
    path = small(tmp_path / "net.onnx", shape=("n", 24, 32, 3), constants={"s": np.float32(1 / 255)})
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = kind
    model.graph.node[0].input[0] = "first"
    inside = [node("Cast", "image", name="float", to=FLOAT), node("Mul", "float", "s", name="scaled")]
    inside.append(node("Transpose", "scaled", name="first", perm=[0, 3, 1, 2]))
    for made in reversed(inside):
        model.graph.node.insert(0, made)
    onnx.save(model, path)
    given = phosphene.Preprocessing(size=(24, 32), value_range=(0, 255), layout="NHWC")
    opened = phosphene.open(path) if kind == TensorProto.UINT8 else phosphene.open(path, given)
    pixels = torch.randint(0, 256, (2, 3, 24, 32), generator=torch.Generator().manual_seed(0)).float()
    for network in (opened, phosphene.open(path, phosphene.Preprocessing(size=(24, 32), layout="NHWC"))):
        if kind == TensorProto.FLOAT and network is not opened:
            continue
        fed = pixels.permute(0, 2, 3, 1).numpy().astype("u1" if kind == TensorProto.UINT8 else "f4")
        (expected,) = ort.InferenceSession(str(path)).run(None, {"image": fed})
        with network.borrowed(), torch.no_grad():
            torch.testing.assert_close(network.forward(pixels), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def resized(mode: str, where: str, rounding: str, scale: float, sizes: bool) -> list[object]:
    options = {"mode": mode, "coordinate_transformation_mode": where, "nearest_mode": rounding}
    inputs = ["conv", "", "", "to"] if sizes else ["conv", "", "by"]
    return [helper.make_node("Resize", inputs, ["active"], "active", **options)]


MOVES = {
    "gather": [node("Gather", "conv", "picked", name="active", axis=1)],
    "gather from the end": [node("Gather", "conv", "picked", name="active", axis=-3)],
    "slice": [node("Slice", "conv", "from", "to_", "axes", "steps", name="active")],
    "slice backwards": [node("Slice", "conv", "last", "first_", "axes", "back", name="active")],
    "split": [
        helper.make_node("Split", ["conv", "parts"], ["p", "q"], "split", axis=1),
        node("Concat", "q", "p", name="active", axis=1),
    ],
    "split alike": [
        helper.make_node("Split", ["conv"], ["p", "q"], "split", axis=1),
        node("Concat", "q", "p", name="active", axis=1),
    ],
    "transpose": [node("Transpose", "conv", name="active", perm=[0, 1, 3, 2])],
    "squeeze": [node("Unsqueeze", "conv", "two", name="u"), node("Squeeze", "u", "two", name="active")],
    "pad": [node("Pad", "conv", "pads", name="active")],
} | {
    f"{mode} {where} {rounding} {scale} {sizes}": resized(mode, where, rounding, scale, sizes)
    for mode in ("nearest", "linear", "cubic")
    for where in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    for rounding in (("floor", "ceil", "round_prefer_floor", "round_prefer_ceil") if mode == "nearest" else ("floor",))
    for scale, sizes in ((2.0, False), (1.5, True))
    if (mode, where) != ("cubic", "asymmetric")
}  # fmt: skip
NUMBERS = {
    "picked": np.array([7, 1, 2, 0, 3, 4, 5, 6]), "from": np.array([1, -9]), "to_": np.array([2**40, -1]),
    "last": np.array([-1, 20]), "first_": np.array([-(2**40), 3]), "back": np.array([-1, -3]),
    "axes": np.array([2, -1]), "steps": np.array([2, 3]), "parts": np.array([3, 5]), "two": np.array([2]),
    "pads": np.array([0, 0, 1, 2, 0, 0, 1, 0]), "by": np.array([1, 1, 2, 2], np.float32),
    "to": np.array([1, 8, 36, 30]),
}  # fmt: skip


@pytest.mark.parametrize("kind", MOVES)
def test_moving_numbers_warns_of_nothing_and_is_as_in_onnxruntime(tmp_path: Path, kind: str) -> None:
    used = {name for made in MOVES[kind] for name in made.input}
    constants = {name: value for name, value in NUMBERS.items() if name in used}
    rows = 1 if "to" in used else "n"
    path = outputs_of(
        tmp_path / "net.onnx", [], {"active": (FLOAT, [rows, None, None, None])},
        middle=MOVES[kind], constants=constants, shape=(rows, 3, 24, 24),
    )  # fmt: skip
    image = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = open_onnx(path)
        with network.borrowed(), torch.no_grad():
            found = network.module(image)
    (expected,) = ort.InferenceSession(str(path)).run(None, {"image": image.numpy()})
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-4, atol=1e-4)
