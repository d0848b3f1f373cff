"""Images of other libraries, for quality.py and units.py: one of a class or channel, as PNG files with what they cost.

quality.py installs the libraries into environments of their own and runs this file there.  Every library is called as
its own documentation calls it, at its defaults but for what is said in `PEERS`, and all optimise one and the same
network.  What a network is fed is counted in passes: one forward and backward pass of one image of its own size.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROWS = 8  # of a plain pass
SPECTRUM = "spectrum_decorrelated.npy"
Views = dict[str, Image.Image]  # by what is behind the entry's name: "" for the image as the library shows it


class Job(NamedTuple):
    """Images to make.

    Attributes:
        peer: a name in `PEERS`.
        steps: of each image.
        network: the arguments of `phosphene.open`; for TensorFlow the path of a Keras model, as `network`.
        size: what the network is fed, height and width.
        fixed: whether it takes that size only.
        classes: their indices.
        batch: the most images at once.
        seed: of all images; each batch has its own, by its first class.
        threads: of the CPU.
        folder: where the images go.
        settings: by what a later run knows that an image need not be made again.
        layer: whose channels `classes` are; empty for classes.
    """

    peer: str
    steps: int
    network: dict[str, Any]
    size: tuple[int, int]
    fixed: bool
    classes: list[int]
    batch: int
    seed: int
    threads: int
    folder: str
    settings: str
    layer: str = ""


class Peer(NamedTuple):
    """A library, as it is called.

    Attributes:
        make: (network, classes, job, device) to the views of each class.
        steps: its default.
        passes: how many a step takes of a network of a size, on average.
        normalised: whether its images are normalised by ImageNet's mean and deviation; the network undoes that.
        batch: the most images that it makes at once.
        environment: "torch" or "tensorflow".
        module: what of it is imported, before the clock runs.
        note: how it is called.
    """

    make: Callable[[Any, list[int], Job, str], list[Views]]
    steps: int
    passes: Callable[[tuple[int, int]], float]
    normalised: bool
    batch: int
    environment: str
    module: str
    note: str


# What all entries share.


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside its place, then move it there: it is never half there."""
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    write(aside)
    os.replace(aside, path)


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_aside(path, lambda aside: aside.write_text(json.dumps(data, indent=1), encoding="utf-8"))


def keep(folder: Path, views: Mapping[int, Views], cost: Mapping[str, Any]) -> None:
    """Write the images of some classes, and then what each of them cost into `made.json`.

    The first view goes into the folder itself, each other one into a folder beside it, named FOLDER+VIEW.
    """
    for index, images in views.items():
        for view, image in images.items():
            place = folder.with_name(f"{folder.name}+{view}") if view else folder
            place.mkdir(parents=True, exist_ok=True)
            write_aside(place / f"{index:03d}.png", lambda path, image=image: image.save(path, "PNG"))
    costs = read_json(folder / "made.json") | {f"{index:03d}": dict(cost) for index in views}
    write_json(folder / "made.json", dict(sorted(costs.items())))


def progress(entry: str, done: int, total: int, seconds: float, passes: float) -> None:
    print(f"{entry}: {done} of {total}, {seconds:.1f} s and {passes:.0f} passes an image", file=sys.stderr, flush=True)


def sow(seed: int) -> None:
    """Seed all that libraries draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (it is what lucent draws from)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(seed)


@contextmanager
def counted(network: Any) -> Iterator[list[float]]:
    """Counts passes of a network of phosphene's: rows that are fed for a gradient, each by its area."""
    passes = [0.0]
    height, width = network.preprocessing.size
    rows_last = network.preprocessing.layout == "NHWC"

    def count(_module: Any, inputs: Sequence[Any]) -> None:
        fed = inputs[0]
        if fed.requires_grad:
            down, across = fed.shape[1:3] if rows_last else fed.shape[2:4]
            passes[0] += len(fed) * down * across / (height * width)

    handle = network.module.register_forward_pre_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


def plain_pass(network: Any, device: str) -> float:
    """Seconds of a bare forward and backward pass of one image, in a batch of `ROWS`, in PyTorch's own memory order.

    The network is borrowed.
    """
    import torch

    from phosphene.networks.outputs import logits

    def once() -> float:
        pixels = (255 * torch.rand(ROWS, 3, *network.preprocessing.size, device=device)).requires_grad_()
        clock = time.perf_counter()
        (gradient,) = torch.autograd.grad(logits(network.module(network.preprocessing(pixels)))[:, 0].sum(), pixels)
        gradient.sum().item()  # waits for the device
        return (time.perf_counter() - clock) / ROWS

    once()
    return statistics.median(once() for _ in range(3))


# From a library's numbers to images.


def to_image(values: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """(height, width, channels) in 0..1 to 8 bits, of the network's size."""
    image = Image.fromarray(np.round(255 * np.clip(values, 0, 1)).astype(np.uint8))
    return image if image.size == size[::-1] else image.resize(size[::-1], Image.Resampling.BICUBIC)


def maco_views(values: np.ndarray, alpha: np.ndarray, box: float, size: tuple[int, int]) -> Views:
    """What horama and xplique show of a canvas (height, width, channels): clipped at 1 % and stretched to 0..1.

    "": the whole canvas, opaque.  "alpha": on white, as transparent as their plot has it.  "centre": the middle of
    the canvas, of the size of the crops that the network saw, opaque.
    """
    low, high = np.percentile(values, (1, 99))
    shown = (np.clip(values, low, high) - low) / (high - low)
    opacity = alpha.mean(-1, keepdims=True)
    opacity = np.minimum(opacity, np.percentile(opacity, 80))
    opacity = opacity / opacity.max()
    side = round(box * len(values))
    start = (len(values) - side) // 2
    return {
        "": to_image(shown, size),
        "alpha": to_image(shown * opacity + 1 - opacity, size),
        "centre": to_image(shown[start : start + side, start : start + side], size),
    }


# The libraries.  `network` takes images, rows x channels x height x width, and gives logits, also as `.logits`.

LUCENT_SCALES = [1 + (i - 5) / 50 for i in range(11)]


def lucent(network: Any, classes: list[int], job: Job, _device: str) -> list[Views]:
    return _lucent(network, classes, job, (128, 128), job.size)


def lucent_full(network: Any, classes: list[int], job: Job, _device: str) -> list[Views]:
    return _lucent(network, classes, job, job.size, job.size if job.fixed else None)


def _lucent(
    network: Any, classes: list[int], job: Job, size: tuple[int, int], fed: tuple[int, int] | None
) -> list[Views]:
    from lucent.optvis import objectives, param, render

    aims = [objectives.channel("logits", index, batch=row) for row, index in enumerate(classes)]
    (images,) = render.render_vis(
        network,
        objectives.Objective.sum(aims),
        lambda: param.image(size[1], size[0], batch=len(classes)),
        thresholds=(job.steps,),
        preprocess=False,
        progress=False,
        show_image=False,
        fixed_image_size=fed,
    )
    return [{"": to_image(image, job.size)} for image in images]


def lucent_passes(size: tuple[int, int]) -> float:
    """Of an image of the network's size: lucent pads it by 12, scales it, and pads what got smaller."""

    def fed(side: int, scale: float) -> int:
        scaled = math.ceil(scale * (side + 24))
        return scaled + 2 * max(0, math.ceil((side + 24 - scaled) / 2))

    areas = [fed(size[0], scale) * fed(size[1], scale) for scale in LUCENT_SCALES]
    return statistics.mean(areas) / (size[0] * size[1])


def horama(network: Any, classes: list[int], job: Job, device: str) -> list[Views]:
    return [_horama("maco", network, index, job, device) for index in classes]


def horama_fourier(network: Any, classes: list[int], job: Job, device: str) -> list[Views]:
    return [_horama("fourier", network, index, job, device) for index in classes]


def _horama(method: str, network: Any, index: int, job: Job, device: str) -> Views:
    import horama as library

    if job.size[0] != job.size[1]:
        raise ValueError(f"horama makes squares only: the network is fed {job.size[0]}x{job.size[1]}")
    image, alpha = getattr(library, method)(
        lambda images: network(images)[:, index].mean(),
        total_steps=job.steps,
        model_input_size=job.size[0],
        device=device,
    )
    # Its crops are 0.25 to 0.30 of the canvas.
    arrays = [tensor.detach().cpu().numpy().transpose(1, 2, 0) for tensor in (image, alpha)]
    return maco_views(*arrays, 0.275, job.size)


def torch_dreams(network: Any, classes: list[int], job: Job, device: str) -> list[Views]:
    from torch_dreams import Dreamer
    from torch_dreams.batched_image_param import BatchedAutoImageParam
    from torch_dreams.batched_objective import BatchedObjective

    def aim(index: int) -> Callable[[list[Any]], Any]:
        return lambda outputs: -outputs[0][:, index].mean()

    result = Dreamer(network, quiet=True, device=device).render(
        layers=[network.logits],
        image_parameter=BatchedAutoImageParam(len(classes), device=device),
        custom_func=BatchedObjective([aim(index) for index in classes]),
        iters=job.steps,
    )
    arrays = [result[row].to_hwc_tensor(device).cpu().numpy() for row in range(len(classes))]
    return [{"": to_image(array, job.size)} for array in arrays]


def tf_keras_vis(logits: Any, classes: list[int], job: Job, _device: str) -> list[Views]:
    import keras
    import tensorflow as tf
    from tf_keras_vis.activation_maximization import ActivationMaximization
    from tf_keras_vis.utils.scores import CategoricalScore

    pixels = keras.Input((*job.size, 3))
    model = keras.Model(pixels, logits(keras.layers.Rescaling(1 / 127.5, -1)(pixels)))
    images = ActivationMaximization(model, clone=False)(
        CategoricalScore(classes),
        seed_input=tf.random.uniform((len(classes), *job.size, 3), 0, 255),
        steps=job.steps,
    )
    return [{"": to_image(np.asarray(image) / 255, job.size)} for image in images]


def xplique(logits: Any, classes: list[int], job: Job, _device: str) -> list[Views]:
    from xplique.features_visualizations import Objective, maco

    made = [maco(Objective.neuron(logits, -1, index), nb_steps=job.steps) for index in classes]
    # Its crops shrink from 0.5 to 0.05 of the canvas.
    return [maco_views(np.asarray(image), np.asarray(alpha), 0.275, job.size) for image, alpha in made]


PEERS = {
    "lucent": Peer(
        lucent, 512, lambda _: 1.0, False, 8, "torch", "lucent.optvis.render",
        "lucent 0.1.8, `render_vis` as it comes: a Fourier image of 128 px, brought to the network's size behind its "
        "transforms (and for scoring, bicubically), Adam 0.05, 512 steps. preprocess=False: the network normalises by "
        "itself. A batch is one run with an objective a row; its rows share the draws of the transforms, as in lucent.",
    ),
    "lucent-full": Peer(
        lucent_full, 512, lucent_passes, False, 8, "torch", "lucent.optvis.render",
        "as lucent, but with `param.image` of the network's size, fed as large as the transforms make it.",
    ),
    "horama": Peer(
        horama, 1000, lambda _: 6.0, True, 1, "torch", "horama",
        "horama 0.3.0, `maco`: a canvas of 1280 px, 6 crops a step (6 passes), NAdam 1.0, 1000 steps, values -2.5..2.5 "
        "in ImageNet's normalised space, which the network undoes. Scored as its plot stretches it (1 % clipped), "
        "scaled down, without transparency; +alpha: with it, on white; +centre: the middle of the canvas only, 27.5 % "
        "of a side, as large as the crops that the network saw.",
    ),
    "horama-fourier": Peer(
        horama_fourier, 1000, lambda _: 6.0, True, 1, "torch", "horama",
        "horama 0.3.0, `fourier`: 1/f^1.5, all else as horama.",
    ),
    "torch-dreams": Peer(
        torch_dreams, 120, lambda size: (0.85 * 256) ** 2 / (size[0] * size[1]), True, 8, "torch", "torch_dreams",
        "torch-dreams 4.0.0, `Dreamer.render` as it comes: a Fourier image of 256 px, AdamW 0.009, 120 steps, rotated "
        "and scaled (0.5..1.2) before it enters the network, which undoes the normalisation; "
        "`BatchedAutoImageParam`, whose rows share the draws.",
    ),
    "tf-keras-vis": Peer(
        tf_keras_vis, 200, lambda _: 1.0, False, 8, "tensorflow", "tf_keras_vis.activation_maximization",
        "tf-keras-vis 0.8.7, `ActivationMaximization` as it comes: pixels 0..255 (the network scales them), RMSprop "
        "1.0, 200 steps; on the Keras file of the same weights, its softmax left out.",
    ),
    "xplique": Peer(
        xplique, 256, lambda _: 32.0, False, 1, "tensorflow", "xplique.features_visualizations",
        "xplique 2.0.2, `maco` as it comes: a canvas of 512 px, 32 crops a step (32 passes), Nadam 1.0, 256 steps, "
        "-1..1 as the network expects; on the Keras file of the same weights, its softmax left out. +alpha and +centre "
        "as for horama: the crops are 27.5 % of a side on average.",
    ),
}  # fmt: skip


def steps_for(peer: Peer, budget: str, size: tuple[int, int]) -> int:
    """The steps of a budget: "default", or a number of passes."""
    return peer.steps if budget == "default" else max(1, round(int(budget) / peer.passes(size)))


# Running them.


def fed_as(network: Any, normalised: bool, layer: str = "") -> Any:
    """A network of phosphene's as a module that takes 0..1 RGB, or that normalised by ImageNet's mean and deviation.

    What it returns as logits are, of a layer, its channels, averaged over their maps; nothing behind it is run.  The
    modules in it are hidden: lucent would hook all of them, and never let go.
    """
    import torch

    def numbers(values: Sequence[float], like: Any) -> Any:
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)

    class Fed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = torch.nn.Identity()

        def forward(self, images: Any) -> Any:
            if normalised:
                images = images * numbers(IMAGENET_STD, images) + numbers(IMAGENET_MEAN, images)
            return self.logits(channels(255 * images) if layer else network.forward(255 * images))

    def channels(pixels: Any) -> Any:
        found: list[Any] = []
        network.read(pixels, {layer: found.append})
        return found[0].float().flatten(2).mean(2)

    return Fed()


def run_torch(job: Job, peer: Peer) -> None:
    import torch

    import phosphene

    torch.set_num_threads(job.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = phosphene.open(**job.network)
    network = network.with_input_size(job.size) if job.layer else network
    with network.borrowed(device):
        module = fed_as(network, peer.normalised, job.layer)
        plain = 0.0 if job.layer else plain_pass(network, device)

        def make(classes: list[int]) -> tuple[list[Views], float]:
            with counted(network) as passes:
                views = peer.make(module, classes, job, device)
            return views, passes[0] / len(classes)

        run(job, peer, plain, make)


def run_tensorflow(job: Job, peer: Peer) -> None:
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(job.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = keras.models.load_model(job.network["network"], compile=False)
    logits = keras.Model(model.inputs, model.layers[-2].output)  # behind it is the softmax

    @tf.function
    def gradient(images: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(images)
            total = tf.reduce_sum(logits(images)[:, 0])
        return tape.gradient(total, images)

    times = []
    for _ in range(4):
        images = tf.random.uniform((ROWS, *job.size, 3), -1, 1)
        clock = time.perf_counter()
        gradient(images).numpy()
        times.append((time.perf_counter() - clock) / ROWS)

    def make(classes: list[int]) -> tuple[list[Views], float]:
        return peer.make(logits, classes, job, ""), job.steps * peer.passes(job.size)

    run(job, peer, statistics.median(times[1:]), make)


def run(job: Job, peer: Peer, plain: float, make: Callable[[list[int]], tuple[list[Views], float]]) -> None:
    folder = Path(job.folder)
    size = min(job.batch, peer.batch)
    importlib.import_module(peer.module)
    for start in range(0, len(job.classes), size):
        classes = job.classes[start : start + size]
        sow(job.seed + 1000 * classes[0])
        clock = time.perf_counter()
        views, passes = make(classes)
        seconds = (time.perf_counter() - clock) / len(classes)
        cost = {"settings": job.settings, "steps": job.steps, "passes": passes, "seconds": seconds, "plain": plain}
        keep(folder, dict(zip(classes, views, strict=True)), cost)
        progress(folder.name, start + len(classes), len(job.classes), seconds, passes)


def main() -> None:
    fields = json.loads(sys.argv[1])
    job = Job(**fields | {"size": tuple(fields["size"])})
    peer = PEERS[job.peer]
    {"torch": run_torch, "tensorflow": run_tensorflow}[peer.environment](job, peer)


if __name__ == "__main__":
    main()
