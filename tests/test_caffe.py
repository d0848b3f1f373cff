"""Caffe networks: equal to OpenCV's independent reader, whatever the layer, and safe with whatever the file."""

from __future__ import annotations

import tracemalloc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from caffe_writer import blob, caffemodel, field, random_layers, varint, write_random
from corruption import check_corrupted
from helpers import SHARED
from PIL import Image

from phosphene import InputError, Network
from phosphene.networks.sources.caffe.mean import read_mean
from phosphene.networks.sources.caffe.model import SHIPPED, open_caffe
from phosphene.networks.sources.caffe.text import parse, read_prototxt
from phosphene.networks.sources.caffe.wire import read_caffemodel

DEFINITIONS = Path(open_caffe.__code__.co_filename).parent / "definitions"
SQUEEZENET = SHARED / "weights" / "squeezenet_v1.1.prototxt"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")


def layer(name: str, type_: str, settings: str = "", bottom: str = "data", top: str = "") -> str:
    bottoms = " ".join(f'bottom: "{each}"' for each in bottom.split())
    tops = " ".join(f'top: "{each}"' for each in (top or name).split())
    return f'layer {{ name: "{name}" type: "{type_}" {bottoms} {tops} {settings} }}\n'


def definition(*layers: str, shape: tuple[int, ...] = (1, 3, 13, 17)) -> str:
    dims = " ".join(f"dim: {length}" for length in shape)
    return f'name: "small"\ninput: "data"\ninput_shape {{ {dims} }}\n' + "".join(layers)


def conv(name: str = "conv", settings: str = "num_output: 4 kernel_size: 3", **blobs: str) -> str:
    return layer(name, "Convolution", f"convolution_param {{ {settings} }}", **blobs)


def written(folder: Path, text: str, **form: bool) -> tuple[Path, Path]:
    """A definition and random weights of it, as files."""
    prototxt = folder / "net.prototxt"
    prototxt.write_text(text)
    return prototxt, write_random(prototxt, folder / "net.caffemodel", **form)


def images(rows: int, channels: int, height: int, width: int, spread: float = 1.0) -> torch.Tensor:
    return torch.randn((rows, channels, height, width), generator=torch.Generator().manual_seed(0)) * spread


def run(network: Network, inputs: torch.Tensor) -> np.ndarray:
    with network.borrowed(), torch.no_grad():
        return network.module(inputs).numpy()


def by_opencv(prototxt: Path, weights: Path, inputs: torch.Tensor, *names: str) -> list[np.ndarray]:
    """What OpenCV's reader of Caffe networks gives for the inputs."""
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip("this OpenCV does not read Caffe networks: pip install 'opencv-python-headless<5'")
    network = cv2.dnn.readNetFromCaffe(str(prototxt), str(weights))
    network.enableWinograd(False)
    network.enableFusion(False)
    network.setInput(inputs.numpy())
    return list(network.forward(list(names) or network.getUnconnectedOutLayersNames()))


# What layers compute.

CASES = {
    "rectangular": conv(settings="num_output: 4 kernel_h: 3 kernel_w: 5 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 2"),
    "rectangular, repeated": conv(settings="num_output: 4 kernel_size: 5 kernel_size: 3 pad: [2, 1] stride: 2"),
    "dilation": conv(settings="num_output: 5 kernel_size: 3 dilation: 2 pad: 2"),
    "groups": conv("a", "num_output: 6 kernel_size: 1")
    + conv("b", "num_output: 4 kernel_size: 3 group: 2", bottom="a"),
    "depthwise, no bias": conv(settings="num_output: 3 kernel_size: 3 group: 3 bias_term: false"),
    "deconvolution": layer(
        "up", "Deconvolution", "convolution_param { num_output: 4 kernel_size: 4 stride: 2 pad: 1 }"
    ),
    "negative slope": conv() + layer("relu", "ReLU", "relu_param { negative_slope: 0.3 }", bottom="conv", top="conv"),
    "prelu": conv() + layer("act", "PReLU", bottom="conv", top="conv"),
    "elu": layer("act", "ELU", "elu_param { alpha: 0.7 }"),
    "sigmoid": layer("act", "Sigmoid"),
    "tanh": layer("act", "TanH"),
    "power": layer("power", "Power", "power_param { power: 2 scale: 0.5 shift: 1.5 }"),
    "max, odd size": layer("pool", "Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"),
    "max, rectangular": layer("pool", "Pooling", "pooling_param { kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 3 }"),
    "max, padded": layer("pool", "Pooling", "pooling_param { kernel_size: 3 stride: 2 pad: 1 }"),
    "average": layer("pool", "Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 }"),
    "average, padded": layer("pool", "Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"),
    "global average": layer("pool", "Pooling", "pooling_param { pool: AVE global_pooling: true }"),
    "global maximum": layer("pool", "Pooling", "pooling_param { pool: MAX global_pooling: true }"),
    "lrn": conv(settings="num_output: 9 kernel_size: 1")
    + layer("norm", "LRN", "lrn_param { local_size: 5 alpha: 0.5 beta: 0.75 }", bottom="conv"),
    "lrn within a channel": layer(
        "norm", "LRN", "lrn_param { local_size: 3 alpha: 0.8 beta: 0.6 norm_region: WITHIN_CHANNEL }"
    ),
    "inner product": layer("fc", "InnerProduct", "inner_product_param { num_output: 7 }"),
    "inner product, no bias": layer("fc", "InnerProduct", "inner_product_param { num_output: 7 bias_term: false }"),
    "softmax": conv() + layer("prob", "Softmax", bottom="conv"),
    "concat": conv("a") + conv("b") + layer("both", "Concat", bottom="a b"),
    "concat, old": conv("a") + conv("b") + layer("both", "Concat", "concat_param { concat_dim: 1 }", bottom="a b"),
    "concat, height": conv("a") + conv("b") + layer("both", "Concat", "concat_param { axis: 2 }", bottom="a b"),
    "sum": conv("a") + conv("b") + layer("sum", "Eltwise", bottom="a b"),
    "sum with coefficients": conv("a")
    + conv("b")
    + layer("sum", "Eltwise", "eltwise_param { operation: SUM coeff: 0.5 coeff: -1.5 }", bottom="a b"),
    "product": conv("a") + conv("b") + layer("all", "Eltwise", "eltwise_param { operation: PROD }", bottom="a b"),
    "maximum": conv("a") + conv("b") + layer("all", "Eltwise", "eltwise_param { operation: MAX }", bottom="a b"),
    "batch norm and scale": conv()
    + layer("bn", "BatchNorm", "batch_norm_param { use_global_stats: true eps: 0.001 }", bottom="conv", top="conv")
    + layer("scale", "Scale", "scale_param { bias_term: true }", bottom="conv", top="conv"),
    "scale without bias": layer("scale", "Scale"),
    "flatten": layer("flat", "Flatten"),
    "flatten, some axes": layer("flat", "Flatten", "flatten_param { axis: 2 }"),
    "reshape": layer("shape", "Reshape", "reshape_param { shape { dim: 0 dim: 13 dim: -1 } }"),
    "reshape, from an axis on": layer("shape", "Reshape", "reshape_param { shape { dim: -1 } axis: 1 num_axes: 2 }"),
    "slice": conv()
    + layer("cut", "Slice", "slice_param { slice_point: 1 }", bottom="conv", top="one three")
    + conv("a", bottom="one")
    + conv("b", bottom="three")
    + layer("sum", "Eltwise", bottom="a b"),
    "slice into equal parts": conv()
    + layer("cut", "Slice", "slice_param { slice_dim: 1 }", bottom="conv", top="one two")
    + layer("all", "Eltwise", "eltwise_param { operation: PROD }", bottom="one two"),
    "split": layer("copies", "Split", top="one two")
    + conv("a", bottom="one")
    + conv("b", bottom="two")
    + layer("sum", "Eltwise", bottom="a b"),
    "dropout": conv() + layer("drop", "Dropout", "dropout_param { dropout_ratio: 0.9 }", bottom="conv", top="conv"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_layer_computes_what_opencv_computes(case: str, tmp_path: Path) -> None:
    first = conv("first", "num_output: 3 kernel_size: 1", bottom="data", top="data")
    prototxt, weights = written(tmp_path, definition(first, CASES[case]))
    inputs = images(1, 3, 13, 17)
    found = run(open_caffe(prototxt, weights), inputs)
    (expected,) = by_opencv(prototxt, weights, inputs)
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-5)


def pooled(image: np.ndarray, average: bool, kernel: int, stride: int, pad: int) -> np.ndarray:
    """Caffe's pooling, from its definition, window by window."""
    size = len(image)
    count = -(-(size + 2 * pad - kernel) // stride) + 1
    if (count - 1) * stride >= size + pad:
        count -= 1
    found = np.empty((count, count))
    for row in range(count):
        for column in range(count):
            tops = [place * stride - pad for place in (row, column)]
            ends = [min(top + kernel, size + pad) for top in tops]
            window = image[max(tops[0], 0) : ends[0], max(tops[1], 0) : ends[1]]
            area = (ends[0] - tops[0]) * (ends[1] - tops[1])
            found[row, column] = window.sum() / area if average else window.max()
    return found


@pytest.mark.parametrize("average", [False, True])
def test_pooling_is_caffes_for_every_size_and_window(average: bool, tmp_path: Path) -> None:
    tried = 0
    for size in (5, 6, 7, 8):
        for kernel, stride, pad in [
            (1, 2, 0),
            (2, 1, 1),
            (2, 2, 0),
            (3, 1, 1),
            (3, 2, 0),
            (3, 2, 1),
            (4, 3, 2),
            (5, 3, 1),
        ]:
            settings = f"pool: {'AVE' if average else 'MAX'} kernel_size: {kernel} stride: {stride} pad: {pad}"
            text = definition(layer("pool", "Pooling", f"pooling_param {{ {settings} }}"), shape=(1, 1, size, size))
            (tmp_path / "net.prototxt").write_text(text)
            network = open_caffe(tmp_path / "net.prototxt", pretrained=False)
            inputs = images(1, 1, size, size)
            expected = pooled(inputs[0, 0].numpy(), average, kernel, stride, pad)
            np.testing.assert_allclose(run(network, inputs)[0, 0], expected, atol=1e-6)
            tried += 1
    assert tried == 32


def test_sizes_are_rounded_down_where_an_offspring_of_caffe_says_so(tmp_path: Path) -> None:
    for setting, side in (("", 3), ("ceil_mode: false", 2), ("round_mode: FLOOR", 2)):
        pool = layer("pool", "Pooling", f"pooling_param {{ kernel_size: 2 stride: 2 {setting} }}")
        (tmp_path / "net.prototxt").write_text(definition(pool, shape=(1, 1, 5, 5)))
        found = run(open_caffe(tmp_path / "net.prototxt", pretrained=False), images(1, 1, 5, 5))
        assert found.shape == (1, 1, side, side)


def test_lrn_is_as_published(tmp_path: Path) -> None:
    # Krizhevsky et al. 2012, section 3.3, with Caffe's alpha over the number of channels.
    norm = layer("norm", "LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 k: 2 }")
    (tmp_path / "net.prototxt").write_text(definition(norm, shape=(1, 4, 2, 2)))
    inputs = images(1, 4, 2, 2)
    squares = np.pad(inputs.numpy()[0] ** 2, [(1, 1), (0, 0), (0, 0)])
    sums = squares[:-2] + squares[1:-1] + squares[2:]
    expected = inputs.numpy()[0] / (2 + 0.5 / 3 * sums) ** 0.75
    np.testing.assert_allclose(
        run(open_caffe(tmp_path / "net.prototxt", pretrained=False), inputs)[0], expected, atol=1e-6
    )


def test_a_transposed_inner_product_has_its_weights_the_other_way_round(tmp_path: Path) -> None:
    text = definition(layer("fc", "InnerProduct", "inner_product_param { num_output: 3 }"), shape=(1, 2, 2, 2))
    prototxt, weights = written(tmp_path, text)
    plain = run(open_caffe(prototxt, weights), images(1, 2, 2, 2))
    prototxt.write_text(text.replace("num_output: 3", "num_output: 3 transpose: true"))
    matrix, bias = (blob_.array() for blob_ in read_caffemodel(weights)["fc"])
    weights.write_bytes(caffemodel({"fc": ("InnerProduct", [matrix.T, bias])}))
    np.testing.assert_allclose(run(open_caffe(prototxt, weights), images(1, 2, 2, 2)), plain, atol=1e-6)


def test_a_scale_by_a_second_blob_is_one_number_a_channel(tmp_path: Path) -> None:
    text = definition(
        layer("mean", "Pooling", "pooling_param { pool: AVE global_pooling: true }"),
        layer("gate", "Flatten", bottom="mean"),
        layer("out", "Scale", "scale_param { axis: 0 }", bottom="data gate"),
    )
    (tmp_path / "net.prototxt").write_text(text)
    inputs = images(2, 3, 13, 17)
    found = run(open_caffe(tmp_path / "net.prototxt", pretrained=False), inputs)
    np.testing.assert_allclose(found, inputs * inputs.mean((2, 3), keepdim=True), atol=1e-6)


# How files are written.

SMALL = definition(
    conv("conv1", "num_output: 6 kernel_size: 3"),
    layer("relu1", "ReLU", bottom="conv1", top="conv1"),
    layer("pool1", "Pooling", "pooling_param { kernel_size: 3 stride: 2 }", bottom="conv1"),
    layer("fc2", "InnerProduct", "inner_product_param { num_output: 5 }", bottom="pool1"),
    layer("prob", "Softmax", bottom="fc2"),
)
OLD = """
name: "small"
input: "data"
input_dim: 1 input_dim: 3 input_dim: 13 input_dim: 17
layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
  convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "gaussian" std: 0.01 } } }
layers { name: "relu1" type: RELU bottom: "conv1" top: "conv1" }
layers { name: "pool1" type: POOLING bottom: "conv1" top: "pool1" pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layers { name: "fc2" type: INNER_PRODUCT bottom: "pool1" top: "fc2" inner_product_param { num_output: 5 } }
layers { name: "prob" type: SOFTMAX bottom: "fc2" top: "prob" }
"""


def test_the_old_form_of_both_files_is_the_same_network(tmp_path: Path) -> None:
    new = open_caffe(*written(tmp_path, SMALL))
    prototxt, weights = written(tmp_path, OLD, old=True)
    old = open_caffe(prototxt, weights)
    assert old.digest == new.digest
    inputs = images(1, 3, 13, 17)
    found = run(old, inputs)
    np.testing.assert_allclose(found, run(new, inputs), atol=1e-7)
    np.testing.assert_allclose(found, by_opencv(prototxt, weights, inputs)[0], atol=1e-6)


@pytest.mark.parametrize("old", [False, True])
def test_numbers_may_be_one_by_one_or_double(old: bool, tmp_path: Path) -> None:
    digests = {
        open_caffe(*written(tmp_path, SMALL, old=old, packed=packed, double=double)).digest
        for packed in (True, False)
        for double in (True, False)
    }
    assert len(digests) == 1


def test_numbers_may_come_in_pieces(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype="<f4")
    halves = field(5, numbers[:4].tobytes()) + field(5, numbers[4:].tobytes())
    (tmp_path / "net.caffemodel").write_bytes(
        field(100, field(1, "fc") + field(7, field(7, field(1, b"\x06")) + halves))
    )
    (found,) = read_caffemodel(tmp_path / "net.caffemodel")["fc"]
    assert found.array().tolist() == [0, 1, 2, 3, 4, 5]


def test_weights_are_views_on_the_file_until_a_tensor_takes_them(tmp_path: Path) -> None:
    weights = tmp_path / "large.caffemodel"
    weights.write_bytes(caffemodel({"fc": ("InnerProduct", [np.zeros((1000, 4000), np.float32)])}))
    tracemalloc.start()
    try:
        blobs = read_caffemodel(weights)
        assert tracemalloc.get_traced_memory()[1] < 100_000
        blobs["fc"][0].array()
        assert tracemalloc.get_traced_memory()[1] < 17_000_000
    finally:
        tracemalloc.stop()


def test_what_may_be_in_a_prototxt() -> None:
    message = parse(
        """
        # a comment
        name: "a \\"quoted\\" name\\n" 'and more' ; count: 0x10, octal: 010
        dims: [1, -2, 3] share: .5e1f on: true off: 0
        inner < deep: { leaf: -1.5 } > inner: { deep { leaf: 2 } }
        """,
        "text",
    )
    assert message.text("name") == 'a "quoted" name\\nand more'.replace("\\n", "\n")
    assert (message.integer("count", 0), message.integer("octal", 0)) == (16, 8)
    assert message.integers("dims", -5) == [1, -2, 3]
    assert message.number("share", 0) == 5
    assert message.flag("on", False)
    assert not message.flag("off", True)
    assert [inner.message("deep").number("leaf", 0) for inner in message.messages("inner")] == [-1.5, 2]


# Whole networks.


@pytest.mark.parametrize(
    ("name", "last"),
    [pytest.param("caffenet", "fc8", marks=pytest.mark.slow), ("googlenet", "loss3/classifier")],  # of VGG16: half a GB
)
def test_the_definitions_that_ship_are_what_opencv_makes_of_them(name: str, last: str, tmp_path: Path) -> None:
    prototxt = DEFINITIONS / f"{name}.prototxt"
    # A file of training has more layers, such as those of GoogLeNet's other classifiers.
    layers = random_layers(prototxt, gains={last: 0.02}) | {"loss1/fc": ("InnerProduct", [np.zeros((2, 2))])}
    weights = tmp_path / "random.caffemodel"
    weights.write_bytes(caffemodel(layers))
    del layers
    network = open_caffe(name, weights)
    assert (network.classes, len(network.labels or ())) == (1000, 1000)
    inputs = images(1, 3, *network.preprocessing.size, spread=60)
    read: dict[str, torch.Tensor] = {}
    network.module.get_submodule(last).register_forward_hook(lambda module, _, output: read.update(logits=output))
    shares = run(network, inputs)
    logits, probabilities = by_opencv(prototxt, weights, inputs, last, "prob")
    weights.unlink()
    assert 0.5 < logits.std() < 20
    np.testing.assert_allclose(read["logits"].numpy(), logits, atol=1e-4)
    np.testing.assert_allclose(shares, probabilities, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "parameters", "layers"),
    [
        (
            "caffenet",
            60_965_224,
            {"conv1": (96, 55, 55), "norm1": (96, 27, 27), "conv5": (256, 13, 13), "fc6": (4096,)},
        ),
        pytest.param(
            "vgg16",
            138_357_544,
            {"relu1_1": (64, 224, 224), "relu5_1": (512, 14, 14), "pool5": (512, 7, 7)},
            marks=pytest.mark.slow,
        ),
        (
            "googlenet",
            6_998_552,
            {"conv1/7x7_s2": (64, 112, 112), "inception_3a/output": (256, 28, 28), "pool5/7x7_s1": (1024, 1, 1)},
        ),
    ],
)
def test_the_definitions_that_ship_have_the_published_layers(
    name: str, parameters: int, layers: dict[str, tuple[int, ...]]
) -> None:
    network = open_caffe(name, pretrained=False)
    assert network.parameters == parameters
    assert {name: network.layer(name).shape for name in layers} == layers
    assert network.notes == {}
    assert network.preprocessing.fixed_size
    assert network.ending == ("softmax", 0)


@pytest.fixture(scope="module")
def squeezenet() -> Network:
    if not SHARED.is_dir():
        pytest.skip("needs ../shared")
    return open_caffe(SQUEEZENET, SQUEEZENET.with_suffix(".caffemodel"))


def test_a_trained_network_is_what_opencv_makes_of_it(squeezenet: Network) -> None:
    inputs = images(1, 3, 227, 227, spread=60)
    logits, probabilities = by_opencv(SQUEEZENET, SQUEEZENET.with_suffix(".caffemodel"), inputs, "pool10", "prob")
    read: dict[str, torch.Tensor] = {}
    hook = squeezenet.module.pool10.register_forward_hook(lambda module, _, output: read.update(logits=output))
    np.testing.assert_allclose(run(squeezenet, inputs), probabilities, atol=1e-4)
    hook.remove()
    assert logits.std() > 1
    np.testing.assert_allclose(read["logits"].numpy(), logits, atol=1e-4)


def right(network: Network) -> int:
    """How many of 50 photographs get their own class."""
    paths = sorted((SHARED / "images").glob("*.jpg"))[::4]
    pixels = torch.stack([network.preprocessing.photograph(Image.open(path)) for path in paths])
    with network.borrowed(), torch.no_grad():
        found = torch.cat([network.forward(part).argmax(1) for part in pixels.split(10)])
    return sum(int(path.name[:3]) == index for path, index in zip(paths, found.tolist(), strict=True))


@pytest.mark.slow
def test_a_trained_network_sees_what_is_there_and_less_so_with_its_channels_swapped(squeezenet: Network) -> None:
    swapped = replace(squeezenet.preprocessing, channel_order="RGB")
    found = right(squeezenet)
    assert found >= 28
    assert right(squeezenet.replace(preprocessing=swapped)) <= found - 5


def test_gradients_reach_the_pixels(squeezenet: Network) -> None:
    pixels = torch.full((1, 3, 227, 227), 128.0, requires_grad=True)
    with squeezenet.borrowed():
        squeezenet.forward(pixels)[0, 12].backward()
    assert pixels.grad is not None
    assert (pixels.grad.abs().amax((0, 1)) > 0).float().mean() > 0.5


def test_every_image_of_a_batch_is_by_itself_and_of_another_size(squeezenet: Network) -> None:
    assert not squeezenet.preprocessing.fixed_size
    inputs = images(3, 3, 160, 200, spread=60)
    together = run(squeezenet, inputs)
    np.testing.assert_allclose(together[1:2], run(squeezenet, inputs[1:2]), atol=1e-6)


def test_layers_have_their_names_in_order(squeezenet: Network) -> None:
    names = [each.name for each in squeezenet.layers]
    assert names[:5] == ["conv1", "relu_conv1", "pool1", "fire2/squeeze1x1", "fire2/relu_squeeze1x1"]
    assert squeezenet.layer("fire9/concat").shape == (512, 14, 14)
    assert squeezenet.layer("fire2/relu_expand3x3").worth_showing
    # The map before an activation in place is read as it was.
    read: dict[str, torch.Tensor] = {}
    readers = {name: lambda output, name=name: read.update({name: output}) for name in ("conv1", "relu_conv1")}
    with squeezenet.borrowed(), torch.no_grad():
        squeezenet.forward(torch.full((1, 3, 227, 227), 128.0), readers)
    assert read["conv1"].min() < 0
    torch.testing.assert_close(read["conv1"].clamp(min=0), read["relu_conv1"])


def test_names_that_are_taken_get_something_behind_them(tmp_path: Path) -> None:
    text = definition(
        conv("train"),
        layer("half", "ReLU", bottom="train", top="train"),
        layer("a.b#1", "ReLU", bottom="train", top="train"),
        layer("same", "Sigmoid", bottom="train", top="train"),
        layer("same", "Sigmoid", bottom="train", top="train"),
    )
    network = open_caffe(*written(tmp_path, text))
    assert [each.name for each in network.layers] == ["train_", "half_", "a_b_1", "same", "same_5"]


TRAIN_VAL = """
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { mirror: true crop_size: 11 } data_param { source: "train" batch_size: 256 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 15 mean_value: 10 mean_value: 20 mean_value: 30 scale: 0.5 }
  data_param { source: "val" } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "noise" type: "SomethingOfTheirs" bottom: "conv1" top: "conv1" include { phase: TRAIN } }
layer { name: "aux/fc" type: "InnerProduct" bottom: "conv1" top: "aux/fc" inner_product_param { num_output: 2 }
  exclude { phase: TEST } }
layer { name: "aux/loss" type: "SoftmaxWithLoss" bottom: "aux/fc" bottom: "label" top: "aux/loss" loss_weight: 0.3 }
layer { name: "fc" type: "InnerProduct" bottom: "conv1" top: "fc" inner_product_param { num_output: 6 } }
layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


def test_the_test_phase_of_a_training_definition(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(TRAIN_VAL)
    network = open_caffe(tmp_path / "net.prototxt", pretrained=False)
    assert [each.name for each in network.layers] == ["conv1", "fc"]
    assert network.classes == 6
    assert network.ending is None
    eats = network.preprocessing
    assert (eats.size, eats.mean, eats.std) == ((15, 15), (10, 20, 30), (2, 2, 2))
    assert network.notes == {}
    # As Caffe's data layers do it: less the mean, times the scale.
    pixels = torch.tensor([30.0, 20.0, 11.0]).view(1, 3, 1, 1)  # RGB
    assert eats(pixels).flatten().tolist() == [0.5, 0, 0]


def test_only_a_network_whose_outputs_depend_on_the_size_is_of_fixed_size(tmp_path: Path) -> None:
    fc = layer("fc", "InnerProduct", "inner_product_param { num_output: 5 }", bottom="pool")
    for pool, fixed in (("global_pooling: true", False), ("kernel_size: 13", True)):
        text = definition(layer("pool", "Pooling", f"pooling_param {{ {pool} }}"), fc, shape=(1, 3, 13, 13))
        assert open_caffe(*written(tmp_path, text)).preprocessing.fixed_size == fixed


def test_blobs_are_let_go_when_nobody_needs_them_any_more(tmp_path: Path) -> None:
    text = definition(
        conv("a"),
        layer("b", "Sigmoid", bottom="a"),
        layer("c", "Sigmoid", bottom="b", top="b"),
        layer("d", "Eltwise", bottom="b a"),
        layer("e", "TanH", bottom="d"),
    )
    network = open_caffe(*written(tmp_path, text))
    made: dict[str, weakref.ref[torch.Tensor]] = {}
    there: dict[str, set[str]] = {}  # whose blobs are there when a layer is called
    for name in "abcde":
        module = network.module.get_submodule(name)
        module.register_forward_pre_hook(
            lambda *_, name=name: there.update({name: {other for other, blob in made.items() if blob() is not None}})
        )
        module.register_forward_hook(lambda module, blobs, output, name=name: made.update({name: weakref.ref(output)}))
    with network.borrowed(), torch.no_grad():
        network.module(torch.zeros(1, network.preprocessing.channels, *network.preprocessing.size))
    assert there == {"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": {"a", "c"}, "e": {"d"}}


# What the network eats.


def test_a_mean_is_numbers_or_a_file_of_them(tmp_path: Path) -> None:
    image = np.broadcast_to(np.array([104, 117, 123], np.float32)[:, None, None], (3, 4, 5)).copy()
    image[:, 0] += 1
    image[:, 1] -= 1
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "numbers.npy", np.array([104.0, 117, 123]))
    (tmp_path / "image.binaryproto").write_bytes(blob(image, old=True))
    (tmp_path / "new.binaryproto").write_bytes(blob(image, double=True))
    given = ["104,117,123", "104, 117, 123", (104, 117, 123), *map(str, tmp_path.iterdir()), *tmp_path.iterdir()]
    assert len(given) == 11
    for mean in given:
        assert read_mean(mean, 3) == pytest.approx((104, 117, 123))
    assert read_mean("33", 3) == (33, 33, 33)


@pytest.mark.parametrize(
    ("mean", "text"),
    [
        ("104,117", "a mean of 2 numbers: expected 3"),
        ("104,117,much", "expected numbers, one a channel"),
        ("", "expected numbers, one a channel"),
        ("nan", "infinite or no number"),
        ("nowhere.npy", "no such file"),
        ("nowhere.binaryproto", "no such file"),
        ("weights.caffemodel", "holds weights"),
    ],
)
def test_a_mean_that_is_none_is_refused(mean: str, text: str, tmp_path: Path) -> None:
    prototxt, weights = written(tmp_path, SMALL)
    with pytest.raises(InputError, match=text) as error:
        open_caffe(prototxt, weights, mean)
    assert "\n" not in str(error.value)


def test_mean_files_of_other_shapes_or_kinds_are_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.npy"
    for array in (np.zeros((4, 5, 3)), np.zeros((2, 5)), np.array(["a"]), np.zeros((1, 3, 2, 2), bool)):
        np.save(bad, array)
        with pytest.raises(InputError, match=r"bad\.npy"):
            read_mean(bad, 3)
    np.save(bad, np.array([{"an": "object"}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="no array of numbers"):
        read_mean(bad, 3)
    np.save(bad, np.zeros(3))
    bad.write_bytes(bad.read_bytes().replace(b"(3,), }             ", b"(300000000000000,), }")[:-1])
    with pytest.raises(InputError, match="damaged"):
        read_mean(bad, 3)


def test_what_is_assumed_is_said(tmp_path: Path) -> None:
    prototxt, weights = written(tmp_path, SMALL)
    network = open_caffe(prototxt, weights)
    assert "BGR 0..255 less (104, 117, 123) is assumed" in network.notes["preprocessing"]
    assert network.preprocessing.crop == 1
    assert network.preprocessing.resize == "squash"
    told = open_caffe(prototxt, weights, mean=(1, 2, 3))
    assert told.notes == {}
    assert told.preprocessing.mean == (1, 2, 3)
    plain = TRAIN_VAL.replace("mean_value: 10 mean_value: 20 mean_value: 30", "")
    network = open_caffe(*written(tmp_path, plain))
    assert (network.preprocessing.mean, network.notes) == ((0, 0, 0), {})
    grey = definition(conv(), shape=(1, 1, 28, 28))
    network = open_caffe(*written(tmp_path, grey))
    assert "1 channel 0..1 is assumed" in network.notes["preprocessing"]
    named = TRAIN_VAL.replace("mean_value: 10 mean_value: 20 mean_value: 30", 'mean_file: "data/mean.binaryproto"')
    network = open_caffe(*written(tmp_path, named))
    assert network.notes["preprocessing"].startswith("its mean file 'data/mean.binaryproto' is not in the definition")


def test_what_ships_is_fed_as_it_was_trained() -> None:
    eats = {name: open_caffe(name, pretrained=False).preprocessing for name in ("caffenet", "googlenet")}
    assert eats["caffenet"].size == (227, 227)
    assert eats["caffenet"].crop == 227 / 256
    assert eats["googlenet"].mean == (104, 117, 123)
    assert {each.resize for each in eats.values()} == {"squash"}
    assert SHIPPED["vgg16"].mean == (103.939, 116.779, 123.68)


# What is refused.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "has no layers"),
        ("layer {", "line 1: expected a field's name or '}', found the end"),
        ("layer }", "line 1: expected ':' or '{'"),
        ("}", "expected a field's name"),
        ("name: ", "expected a value, found the end"),
        ("name: {", "expected a field's name"),
        ('name: "small', "has no meaning"),
        ("input_dim: [1, 2", "expected ',' or ']'"),
        ("input_dim: 09", "expected a number, found '09'"),
        (f"input_dim: {'9' * 5000}", "expected a number"),
        ("\n\n  ?", "line 3: '.' has no meaning"),
        ("\0\1\2", "has no meaning"),
        ("a {" * 100_000, "nested over 16 deep"),
        ("a: [[", "expected a value"),
        ("layers { layer { name: 'conv1' } }", "oldest format"),
        ("layer { } layers { }", "both layer and layers"),
        ("layer: 3", "layer is 3: expected a message"),
        (definition(), "has no layers"),
        (definition(conv()) + "Layer { }", "the setting 'Layer' is not known; did you mean layer"),
        (definition(layer("x", "Re\\nLU")), "not known"),
        (definition(layer("x", "Python")), "layer 'x' \\('Python'\\): layers of this type are not known"),
        (definition(layer("x", "Convolutions")), "did you mean Convolution"),
        (
            definition(conv(), layer("x", "ReLU", bottom="conw")),
            "nothing before it makes its bottom 'conw'; did you mean conv",
        ),
        (definition(layer("x", "ReLU", bottom="data data")), "has 2 bottoms: expected 1"),
        (definition(layer("x", "ReLU", top="a b")), "has 2 tops: expected one"),
        (definition(layer("x", "ReLU", "relu_param { slope: 1 }")), "the setting 'slope' is not known"),
        (definition(layer("x", "ReLU", "quantize: true")), "the setting 'quantize' is not known"),
        (definition(layer("x", "ReLU", "name: 'y'")), "name is given 2 times"),
        (definition(conv(settings="kernel_size: 3")), "num_output is missing"),
        (definition(conv(settings="num_output: 4")), "kernel_size has 0 numbers"),
        (
            definition(conv(settings="num_output: 4 kernel_size: 0")),
            "kernel_size is 0: expected a whole number of 1 to",
        ),
        (definition(conv(settings="num_output: -4 kernel_size: 3")), "num_output is -4"),
        (definition(conv(settings="num_output: 4 kernel_size: 3.5")), "kernel_size is 3.5"),
        (definition(conv(settings="num_output: 4 kernel_size: 3 group: 2")), "group is 2: expected a divisor"),
        (definition(conv(settings="num_output: 4 kernel_size: 3 kernel_h: 3")), "expected one of them"),
        (definition(conv(settings="num_output: 4 kernel_h: 3")), "kernel_h without kernel_w"),
        (definition(conv(settings="num_output: 4 kernel_size: 30")), "does not take 3x13x17"),
        (definition(conv(settings="num_output: 99999999999999999999 kernel_size: 3")), "num_output is 9999"),
        (definition(conv(settings="num_output: 1000000 kernel_size: 1 pad: 9999")), "numbers: expected up to"),
        (
            definition(conv(settings="num_output: 1000000 kernel_size: 16000 pad: 8000")),
            "parameters: expected 67,108,864 at most without",
        ),
        (definition(layer("x", "Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }")), "STOCHASTIC"),
        (definition(layer("x", "Pooling", "pooling_param { pool: BEST kernel_size: 2 }")), "pool is 'BEST'"),
        (definition(layer("x", "LRN", "lrn_param { local_size: 4 }")), "expected an odd number"),
        (definition(layer("x", "BatchNorm", "batch_norm_param { use_global_stats: false }")), "depends on the others"),
        (definition(layer("x", "Slice", "slice_param { slice_point: 4 }", top="a b")), "cut 3 into 2"),
        (definition(layer("x", "Softmax", "softmax_param { axis: 4 }")), "axis is 4: expected an axis of 1 to 3"),
        (definition(layer("x", "Softmax", "softmax_param { axis: 0 }")), "axis is 0"),
        (definition(layer("x", "Reshape", "reshape_param { shape { dim: -1 dim: 3 } }")), "mixes the images"),
        (definition(layer("x", "Reshape", "reshape_param { shape { dim: 0 dim: 7 } }")), "does not take"),
        (definition(layer("x", "ReLU"), shape=(1, 3, 0, 17)), "has the shape 1x3x0x17"),
        (definition(layer("x", "ReLU"), shape=(1, 3, 100_000, 17)), "has the shape"),
        (definition(layer("x", "ReLU"), shape=(1, 3)), "has the shape 1x3"),
        ('input: "data" layer { }', "1 inputs and 0 shapes"),
        ("layer { name: 'x' type: 'ReLU' bottom: 'data' top: 'x' }", "has no input"),
        (TRAIN_VAL.replace("crop_size: 15", ""), "expected a deploy.prototxt"),
    ],
)
def test_a_definition_that_is_wrong_gets_one_sentence(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(text)
    with pytest.raises(InputError, match=expected) as error:
        open_caffe(tmp_path / "net.prototxt", pretrained=False)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_parameters_that_only_a_definition_claims_are_bounded(tmp_path: Path) -> None:
    layers = [
        conv(f"conv{i}", "num_output: 16000 kernel_size: 3", bottom=f"conv{i - 1}" if i else "data") for i in range(5)
    ]
    (tmp_path / "net.prototxt").write_text(definition(*layers, shape=(1, 3, 15, 15)))
    with pytest.raises(InputError, match="parameters: expected 67,108,864 at most without"):
        open_caffe(tmp_path / "net.prototxt", pretrained=False)
    # With weights, a tensor is no larger than what the file has of it.
    small = caffemodel({"conv0": ("Convolution", [np.zeros((16, 3, 3, 3), np.float32), np.zeros(16, np.float32)])})
    (tmp_path / "net.caffemodel").write_bytes(small)
    with pytest.raises(InputError, match="blob of 16x3x3x3: expected 16000x3x3x3"):
        open_caffe(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")


HUGE = varint((1 << 63) - 1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "it is empty"),
        (b"\x00", "number 0"),
        (b"\xa2", "ends within a number"),
        (b"\xff" * 11, "more than 64 bits"),
        (varint(100 << 3 | 2) + HUGE, "a length of 9,223,372,036,854,775,807 bytes where 0 are left"),
        (varint(100 << 3 | 2) + b"\x05abc", "a length of 5 bytes where 3 are left"),
        (varint(100 << 3 | 0) + b"\x05", "a number stands where a message"),
        (varint(9 << 3 | 3), "unknown type 3"),
        (varint(9 << 3 | 5) + b"\0\0", "4 bytes are needed where 2"),
        (field(1, "no layers"), "holds no weights of Caffe layers"),
        (field(100, field(1, "fc")), "holds no weights of Caffe layers"),
        (field(100, field(1, b"\xff\xfe")), "name is no text"),
        (field(2, field(1, field(1, "conv1"))), "oldest format"),
        (field(100, field(7, field(5, b"\0\0\0"))), "not whole"),
        (field(100, field(7, field(7, field(1, HUGE)) + field(5, b"\0" * 8))), "has 2 numbers"),
        (field(100, field(7, field(7, field(1, b"\1" * 100)))), "more than 32 axes"),
        (field(100, field(7, field(1, 3) + field(5, b"\0" * 8))), "a blob of shape 3x0x0x0 has 2 numbers"),
        (field(100, field(7, field(5, b"\0" * 4) * 2000)), "more than 1,000 pieces"),
        (field(3, 0) * 1_100_000, "more than 1,000,000 fields"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"PK\3\4 a zip file", "cannot be read"),
    ],
)
def test_weights_that_are_none_get_one_sentence(data: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(SMALL)
    (tmp_path / "net.caffemodel").write_bytes(data)
    with pytest.raises(InputError, match=expected) as error:
        open_caffe(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda layers: layers.pop("fc2"), "has nothing for the layer 'fc2' \\(InnerProduct\\)"),
        (lambda layers: layers["fc2"][1].pop(), "has 1 blobs: expected 2"),
        (lambda layers: layers["fc2"][1].reverse(), "has a blob of 5: expected 5x210"),
        (lambda layers: layers["conv1"][1].__setitem__(0, np.zeros((6, 3, 3, 4))), "6x3x3x4: expected 6x3x3x3"),
        (lambda layers: layers["conv1"][1][1].fill(np.nan), "no numbers"),
    ],
)
def test_weights_of_another_network_get_one_sentence(change, expected: str, tmp_path: Path) -> None:
    prototxt, weights = written(tmp_path, SMALL)
    layers = random_layers(prototxt)
    change(layers)
    weights.write_bytes(caffemodel(layers))
    with pytest.raises(InputError, match=expected):
        open_caffe(prototxt, weights)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    for name, expected in (
        ("vgg16", "VGG_ILSVRC_16_layers.caffemodel"),
        ("vgg19", "did you mean vgg16"),
        (str(tmp_path / "deploy.prototxt"), "there is no Caffe network"),
        ("net.caffemodel", "holds weights: expected a .prototxt"),
    ):
        with pytest.raises(InputError, match=expected):
            open_caffe(name)
    (tmp_path / "net.prototxt").write_text(SMALL)
    with pytest.raises(InputError, match="no such file"):
        open_caffe(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True])
def test_damaged_files_are_refused_or_read(old: bool, tmp_path: Path) -> None:
    prototxt, weights = written(tmp_path, OLD if old else SMALL, old=old)
    assert check_corrupted(weights, lambda path: open_caffe(prototxt, path)) > 50
    assert check_corrupted(prototxt, lambda path: open_caffe(path, weights)) > 50


def test_a_damaged_mean_is_refused_or_read(tmp_path: Path) -> None:
    image = np.ones((3, 8, 8), np.float32)
    np.save(tmp_path / "mean.npy", image)
    (tmp_path / "mean.binaryproto").write_bytes(blob(image))
    for name in ("mean.npy", "mean.binaryproto"):
        assert check_corrupted(tmp_path / name, lambda path: read_mean(path, 3)) > 50


@pytest.mark.slow
@needs_shared
def test_a_damaged_trained_network_is_refused_or_read(tmp_path: Path) -> None:
    weights = tmp_path / "squeezenet.caffemodel"
    weights.write_bytes(SQUEEZENET.with_suffix(".caffemodel").read_bytes())
    assert check_corrupted(weights, lambda path: open_caffe(SQUEEZENET, path), places=40) > 15


def test_the_definitions_that_ship_are_read() -> None:
    for name in SHIPPED:
        assert read_prototxt(DEFINITIONS / f"{name}.prototxt").text("name").lower() == name


PYTHON = 'python_param { module: "m" layer: "P" }'


def test_what_lies_before_unknown_layers_opens(tmp_path):
    text = definition(
        conv(), layer("relu", "ReLU", bottom="conv", top="conv"), layer("odd", "Python", PYTHON, bottom="conv"),
        conv("behind", bottom="odd"), conv("beside", bottom="conv"), layer("both", "Eltwise", bottom="behind beside"),
        layer("boxes", "DetectionOutput", bottom="both odd"),
    )  # fmt: skip
    (tmp_path / "net.prototxt").write_text(text)
    network = open_caffe(tmp_path / "net.prototxt", pretrained=False)
    assert [layer.name for layer in network.layers] == ["conv", "relu", "beside"]
    assert network.classes == 0
    assert network.notes["layers"] == (
        "net.prototxt: 4 of 7 layers are left out: layer 'odd' is a 'Python', which is not known; the network ends at "
        "'beside'"
    )
    prototxt, weights = written(tmp_path, definition(conv(), conv("beside", bottom="conv")))
    prototxt.write_text(text)
    assert open_caffe(prototxt, weights).layer("beside").shape[0] == 4


def test_an_unknown_layer_behind_the_classes_changes_nothing(tmp_path):
    head = layer("fc", "InnerProduct", "inner_product_param { num_output: 5 }", bottom="conv")
    (tmp_path / "net.prototxt").write_text(definition(conv(), head, layer("odd", "Python", PYTHON, bottom="fc")))
    network = open_caffe(tmp_path / "net.prototxt", pretrained=False)
    assert network.classes == 5
    assert "the network ends at 'fc'" in network.notes["layers"]


def test_an_unknown_layer_in_place_is_not_passed_over(tmp_path):
    odd = layer("odd", "Python", PYTHON, bottom="conv", top="conv")
    (tmp_path / "net.prototxt").write_text(definition(conv(), odd, conv("behind", bottom="conv")))
    network = open_caffe(tmp_path / "net.prototxt", pretrained=False)
    assert [layer.name for layer in network.layers] == ["conv"]


def test_where_nothing_is_left_the_layer_is_named(tmp_path):
    (tmp_path / "net.prototxt").write_text(definition(layer("odd", "Python", PYTHON), conv(bottom="odd")))
    with pytest.raises(InputError, match=r"layer 'odd' \('Python'\): layers of this type are not known"):
        open_caffe(tmp_path / "net.prototxt", pretrained=False)


def test_of_several_inputs_the_one_with_maps_is_fed(tmp_path):
    second = 'input: "info"\ninput_shape { dim: 1 dim: 3 dim: 1 dim: 1 }\n'
    head = layer("boxes", "Proposal", bottom="conv info")
    flat = layer("flat", "Flatten", bottom="info")
    (tmp_path / "net.prototxt").write_text(second + definition(conv(), head, flat))
    network = open_caffe(tmp_path / "net.prototxt", pretrained=False)
    assert [layer.name for layer in network.layers] == ["conv"]
    assert "layer 'boxes' is a 'Proposal', which is not known and layer 'flat' takes" in network.notes["layers"]
    third = 'input: "other"\ninput_shape { dim: 1 dim: 3 dim: 13 dim: 17 }\n'
    (tmp_path / "net.prototxt").write_text(third + definition(conv(), conv("twin", bottom="other")))
    with pytest.raises(InputError, match="has 2 inputs"):
        open_caffe(tmp_path / "net.prototxt", pretrained=False)


def test_the_order_of_axes_and_channels_by_themselves(tmp_path):
    order = "permute_param { order: 0 order: 2 order: 3 order: 1 }"
    kernel = "convolution_param { num_output: 4 kernel_size: 3 group: 4 }"
    prototxt, weights = written(tmp_path, definition(conv(), layer("own", "Convolution", kernel, bottom="conv")))
    inputs = images(2, 3, 13, 17)
    expected = run(open_caffe(prototxt, weights), inputs)
    for name in ("ConvolutionDepthwise", "DepthwiseConvolution"):
        own = layer("own", name, kernel.replace("group: 4", ""), bottom="conv")
        prototxt.write_text(definition(conv(), own, layer("turned", "Permute", order, bottom="own")))
        network = open_caffe(prototxt, weights)
        np.testing.assert_allclose(run(network, inputs), expected.transpose(0, 2, 3, 1), atol=1e-6)
        assert "layers" not in network.notes
    prototxt.write_text(definition(layer("turned", "Permute", "permute_param { order: 1 order: 0 }")))
    with pytest.raises(InputError, match=r"expected each of 4 axes once, the rows first"):
        open_caffe(prototxt, pretrained=False)
