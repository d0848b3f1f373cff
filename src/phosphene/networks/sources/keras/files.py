"""Models and weights in Keras's files, `.keras` and `.h5`, read without running what is in them.

A file goes through four gates.  Its HDF5 part is first read by another process, which may crash or hang (`h5check`).
Its description of the model may name Keras's own layers only, none of which holds code.  The model is then built
without memory for its weights, which must fit it one by one; so a wrong number in the description meets the weights
in the file before it is believed.  Only then it is built.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from phosphene.errors import InputError
from phosphene.files import is_file, open_zip, parse_json
from phosphene.networks.sources.keras import h5check
from phosphene.networks.sources.keras.backend import import_keras
from phosphene.networks.sources.keras.configuration import checked_configuration

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_LARGEST_OUTPUT = 2**27  # numbers in one layer's output for one image: 512 MiB
_LARGEST_CONFIG = 16 << 20  # letters; NASNetLarge's are a tenth
READING_SECONDS, _BYTES_A_SECOND = 10, 20e6  # to read a file on a slow disk


def read_keras(path: Path, trained: bool = True) -> Any:
    """The model in a `.keras` file, with its weights or (`trained=False`) with new ones.

    Raises:
        InputError: the file is damaged, or holds what is not Keras's own or would run code.
    """
    with one_sentence(path), TemporaryDirectory() as folder:
        with open_zip(path, repr(str(path))) as archive:
            text = archive.read(_member(archive, path, _CONFIG)).decode()
            config = parse_json(text, f"{_CONFIG} of {str(path)!r}", _LARGEST_CONFIG)
            weights = _unpacked(archive, path, Path(folder))
        check_h5(weights, path)
        return _model(path, config, weights, trained)


def read_h5(path: Path, trained: bool = True) -> Any:
    """The model in an `.h5` file that `check_h5` has passed, with its weights or (`trained=False`) with new ones.

    Raises:
        InputError: it holds weights without a model, is damaged, or holds what is not Keras's own or would run code.
    """
    import h5py

    with one_sentence(path):
        with h5py.File(path, "r") as file:
            config, backend = file.attrs.get("model_config"), file.attrs.get("backend", "tensorflow")
        if config is None:
            raise InputError(
                f"{str(path)!r} holds weights without their model: name it and give them as its weights, as in "
                f"--network keras:MobileNet --weights {path.name}"
            )
        if attribute_text(backend) == "theano":
            raise InputError(
                f"{str(path)!r} was saved by Keras on theano, whose convolutions are mirrored: of those only VGG's "
                "weights are read"
            )
        settings = parse_json(attribute_text(config), f"the model of {str(path)!r}", _LARGEST_CONFIG)
        return _model(path, settings, path, trained)


def put_keras_weights(build: Callable[[], Any], path: Path, name: str) -> Any:
    """Build a model, called `name`, with the weights of a file: `.weights.h5`, `.h5` of any Keras, or `.keras`.

    Raises:
        InputError: the file is damaged, or its weights are of another model.
    """
    keras = import_keras()
    if path.suffix not in (".h5", ".hdf5", ".keras"):
        raise InputError(f"weights file {str(path)!r}: expected .h5, .weights.h5 or .keras")
    with one_sentence(path), TemporaryDirectory() as folder:
        weights = path
        if path.suffix == ".keras":
            with open_zip(path, repr(str(path))) as archive:
                weights = _unpacked(archive, path, Path(folder))
        check_h5(weights, path)
        try:
            with keras.device("meta"):
                build().load_weights(weights)
        except Exception as error:
            raise InputError(f"the weights in {str(path)!r} are not those of {name}: {reason(error)}") from error
        with keras.device("cpu"):
            built = build()
            built.load_weights(weights)
            return built


def check_h5(path: Path, origin: Path | None = None) -> None:
    """Have another process read an HDF5 file; `origin` is what to call it.

    Raises:
        InputError: it cannot be read, hangs or crashes the reader, or declares more than it holds.
    """
    name = str(origin or path)
    if not is_file(path):
        raise InputError(f"{name!r}: there is no such file")
    seconds = READING_SECONDS + path.stat().st_size / _BYTES_A_SECOND
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, h5check.__file__, str(path.resolve())],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{name!r} cannot be read: its HDF5 part is damaged") from error
    if done.returncode:
        reason = done.stdout.decode(errors="replace").strip().partition("\n")[0][:200]
        raise InputError(f"{name!r} cannot be read: {reason or 'its HDF5 part is damaged'}")


@contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """Turns whatever reading a file raises into an `InputError`."""
    if not is_file(path):
        raise InputError(f"{str(path)!r}: there is no such file")
    try:
        yield
    except InputError:
        raise
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError, RecursionError, EOFError) as error:
        raise InputError(f"{str(path)!r} cannot be read: it is truncated or damaged") from error
    except Exception as error:
        raise InputError(f"{str(path)!r} cannot be opened by Keras: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The part of Keras's explanation that says what is wrong, in one line."""
    text = str(error).encode(errors="backslashreplace").decode()  # names of a damaged file may be no Unicode
    text = re.sub(r"\x1b\[\d*m", "", text)
    text = re.split(r"Exception encountered: |Error encountered during deserialization:", text)[-1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Exception encountered when calling"):
        del lines[0]
    return lines[0][:200].rstrip(". ") if lines else type(error).__name__


def all_layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every layer of a model and of the models in it, with the names of these before its own (`outer/inner`)."""
    for layer in model.layers:
        yield prefix + layer.name, layer
        if isinstance(getattr(layer, "layers", None), list):
            yield from all_layers(layer, f"{prefix}{layer.name}/")


def _member(archive: zipfile.ZipFile, path: Path, name: str) -> str:
    if name not in archive.namelist():
        raise InputError(f"{str(path)!r} has no {name} in it: expected what Keras 3 saves")
    if archive.getinfo(name).file_size > 2 * path.stat().st_size + h5check.SLACK:
        raise InputError(f"{str(path)!r}: {name} in it is declared larger than twice the file")
    return name


def _unpacked(archive: zipfile.ZipFile, path: Path, folder: Path) -> Path:
    """The weights as a file of their own; the checksum in the archive is compared on the way."""
    target = folder / _WEIGHTS
    with archive.open(_member(archive, path, _WEIGHTS)) as member, target.open("wb") as file:
        shutil.copyfileobj(member, file, 1 << 20)
    return target


def _model(path: Path, config: Any, weights: Path, trained: bool) -> Any:
    keras = import_keras()
    try:
        config = checked_configuration(config)
    except InputError as error:
        raise InputError(f"{str(path)!r}: {error}") from None
    with keras.device("meta"), _no_memory():
        trial = _build(keras, config)
        trial.load_weights(weights)
        _check_outputs(trial, path)
    with keras.device("cpu"):
        model = _build(keras, config)
        if trained:
            model.load_weights(weights)
    return model


def _build(keras: Any, config: dict[str, Any]) -> Any:
    config = json.loads(json.dumps(config))  # Keras empties it
    if "module" in config:
        return keras.saving.deserialize_keras_object(config, safe_mode=True)
    inner = config["config"]
    if config.get("class_name") == "Sequential":  # a list of layers in Keras before 2.2
        return keras.Sequential.from_config(
            {"name": "sequential", "layers": inner} if isinstance(inner, list) else inner
        )
    return keras.Model.from_config(inner)


@contextmanager
def _no_memory() -> Iterator[None]:
    """Where Keras cannot find a layer's output without memory, it takes some and computes it; here that fails."""
    from keras.src.backend.torch import core

    before = core.DEFAULT_DEVICE
    core.DEFAULT_DEVICE = "meta"
    try:
        yield
    finally:
        core.DEFAULT_DEVICE = before


def _check_outputs(model: Any, path: Path) -> None:
    operations = dict(all_layers(model))
    operations |= {operation.name: operation for operation in getattr(model, "operations", ())}
    for name, operation in operations.items():
        for node in getattr(operation, "_inbound_nodes", ()):
            for tensor in node.output_tensors:
                if math.prod(side or 1 for side in tensor.shape) > _LARGEST_OUTPUT:
                    shown = "x".join(str(side) for side in tensor.shape[1:])
                    raise InputError(
                        f"{str(path)!r}: layer {name!r} gives {shown} numbers for one image: expected up to "
                        f"{_LARGEST_OUTPUT:,}"
                    )


def attribute_text(value: Any) -> str:
    """A string attribute of an HDF5 file, which may be bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
