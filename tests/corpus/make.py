"""Makes the small files in this folder, from which `bench/fuzz.py` makes hostile ones.  All are of noise.

PYTHONPATH=src KERAS_BACKEND=torch python tests/corpus/make.py
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from caffe_writer import blob, caffemodel, random_layers  # noqa: E402

TEXTS = {
    "recipe.toml": """\
        name = "seed"
        steps = 20
        size = [24, 32]
        order = ["clip", "median", "decay", "blur", "small_norm", "small_contribution", "total_variation"]
        optimizer = {name = "adam", rate = 2.5, options = {betas = [0.9, 0.99]}}
        [views]
        count = 2
        crop = [0.5, 1.0]
        [priors.total_variation]
        weight = 3.0
        [median]
        size = 3
        [hidden]
        "views.count" = 1
        [networks.other]
        "optimizer.rate" = 1.5
        """,
    "space.toml": """\
        base = "draft"
        [fields]
        "optimizer.rate" = { low = 0.02, high = 0.3, log = true }
        "views.crop" = { choices = [[0.15, 1.0], [0.5, 1.0]] }
        "median.size" = { choices = [0, 3, 5] }
        "schedule.end" = { low = 0.0, high = 0.5, when = { "schedule.kind" = ["linear", "cosine"] } }
        "schedule.kind" = { choices = ["linear", "cosine"] }
        """,
    "description.toml": """\
        mode = "caffe"
        size = [24, 24]
        mean = [104, 117.5, 123]
        std = 0.25
        value_range = [0.0, 255]
        channel_order = "BGR"
        crop = 0.875
        labels = ["cat", "dog, puppy"]
        """,
    "beside.toml": 'size = 24\nlabels = "labels.txt"\n',
    "labels.txt": "n02123045 tabby, tabby cat\nn02085620 Chihuahua\nteddy bear\ncat\ndog, puppy\n",
    "labels.json": '["cat", "dog, puppy", "teddy"]',
    "keras.json": '{"0": ["n02123045", "tabby_cat"], "1": ["n02085620", "Chihuahua"], "2": "cat"}',
    "table.csv": 'file,label\nim.png,cat\n"im.png",1\nim.png, tabby cat\n',
    "plain.csv": "im.png;x,dog\nim.png,2\n",
    "precision.json": '{"cpu, abc at 24x24": {"fp32": 0.25, "bf16": 0.125}}',
    "run.json": '{"pictures": [{"file": "a.png", "unit": "class:1", "seed": 3, "scores": {"x": 1}}]}',
    "net.prototxt": """\
        name: "net" input: "data" input_shape { dim: 1 dim: 3 dim: 15 dim: 15 }
        layer { name: "c1" type: "Convolution" bottom: "data" top: "c1"
          convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 group: 1 engine: CAFFE } }
        layer { name: "bn" type: "BatchNorm" bottom: "c1" top: "bn" batch_norm_param { eps: 1e-5 } }
        layer { name: "r1" type: "ReLU" bottom: "bn" top: "bn" }
        layer { name: "p1" type: "Pooling" bottom: "bn" top: "p1" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
        layer { name: "n1" type: "LRN" bottom: "p1" top: "n1" lrn_param { local_size: 3 alpha: 0.1 beta: 0.75 } }
        layer { name: "cat" type: "Concat" bottom: "p1" bottom: "n1" top: "cat" concat_param { axis: 1 } }
        layer { name: "fc" type: "InnerProduct" bottom: "cat" top: "fc" inner_product_param { num_output: 5 } }
        layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
        """,
}


class Small(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.append(nn.Linear(4, 5))


def main() -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    for name, text in TEXTS.items():
        lines = text.splitlines()
        (HERE / name).write_text("\n".join(line.removeprefix(" " * 8) for line in lines) + "\n")
    Image.fromarray(random.integers(0, 255, (24, 24, 3), np.uint8)).save(HERE / "im.png")
    image = random.uniform(0, 255, (3, 4, 4))
    np.save(HERE / "mean.npy", image.astype(np.float32))
    np.save(HERE / "fortran.npy", np.asfortranarray(image.astype(">f8")))
    (HERE / "mean.binaryproto").write_bytes(blob(image[None], old=True))
    layers = random_layers(HERE / "net.prototxt")
    (HERE / "net.caffemodel").write_bytes(caffemodel(layers))
    (HERE / "old.caffemodel").write_bytes(caffemodel(layers, old=True, packed=False))
    _torch()
    _picture()
    _statistics()
    _keras()
    _onnx()
    _transformers()


def _torch() -> None:
    from safetensors.torch import save_file

    state = Small().state_dict()
    torch.save(state, HERE / "new.pth")
    torch.save({"state_dict": state, "epoch": 3, "lr": 0.1}, HERE / "training.pt")
    torch.save(state, HERE / "old.bin", _use_new_zipfile_serialization=False)
    save_file(state, HERE / "weights.safetensors", {"format": "pt"})


def _picture() -> None:
    import phosphene

    preprocessing = phosphene.Preprocessing(8, mean=0.5, std=0.25)
    network = phosphene.open(Small(), preprocessing, ["cat", "dog", "owl", "horse", "hen"], name="small")
    recipe = phosphene.Recipe.load("naive").override({"steps": 1})
    with tempfile.TemporaryDirectory() as folder:
        phosphene.ascend(network, ["class:cat"], recipe, seed=0).save(folder)
        shutil.copy(next(Path(folder).glob("*cat.png")), HERE / "made.png")


def _statistics() -> None:
    from phosphene.photographs.activation_statistics import ActivationStatistics, LayerStatistics
    from phosphene.photographs.image_statistics import ImageStatistics

    planes = ImageStatistics(
        torch.rand(3), torch.eye(3), torch.tensor([1.0, 2.0, 4.0]), torch.rand(3, 3, 4) + 0.1, 1.1, 20
    )
    planes.save(HERE / "photographs.safetensors")
    layer = LayerStatistics(*torch.rand(4, 4))
    ActivationStatistics("small", "0" * 16, 20, {"relu": layer}, {"mean": [0.5] * 3}, 0).save(
        HERE / "activations.safetensors"
    )


def _keras() -> None:
    import keras

    inputs = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3, activation="relu", name="c1")(inputs)
    maps = keras.layers.GlobalAveragePooling2D(name="mean")(maps)
    model = keras.Model(inputs, keras.layers.Dense(5, activation="softmax", name="fc")(maps), name="small")
    model.save(HERE / "model.keras")
    model.save(HERE / "model.h5")


def _onnx() -> None:
    torch.onnx.export(
        Small().eval(), (torch.rand(1, 3, 8, 8),), HERE / "net.onnx", dynamo=False, input_names=["images"],
        dynamic_axes={"images": {0: "batch"}},
    )  # fmt: skip


def _transformers() -> None:
    import transformers

    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], num_labels=5, layer_type="basic"
    )
    transformers.ResNetForImageClassification(config).save_pretrained(HERE / "resnet")
    processor = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 32, "width": 32}}
    processor |= {"do_rescale": True, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (HERE / "resnet" / "preprocessor_config.json").write_text(json.dumps(processor))


if __name__ == "__main__":
    main()
