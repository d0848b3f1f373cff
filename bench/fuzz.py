"""Feed every reader with hostile files: each must be read, or refused with an `InputError` of one short sentence.

    python bench/fuzz.py --reader pth --count 20000 --seed 1
    python bench/fuzz.py --all --count 1000000 --jobs 1        # slow readers get fewer of them

Files are made from those in `tests/corpus` by changes of bytes, by splices of two files, and by changes of what they
hold (the values of TOML and JSON, the fields of protobuf, the records of zip archives, the headers of .npy and
.safetensors), so that checksums and lengths fit and the change arrives behind them.  The file of an index is the same
whenever the seed is.

They are read in a child process with limits of memory and time.  A find is: any other exception, an allocation over
the limit, more than some seconds, the end of the process, a text of several lines or with control characters, and a
file written, a process started or an address asked for that the reader has no business with.  Finds are cut down to
what still shows them and kept in `--finds`.  A table in Markdown is printed at the end.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a child of a process with threads is none that can use them
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import faulthandler
import hashlib
import importlib.util
import io
import json
import logging
import mmap
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import tomllib
import traceback
import unicodedata
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import tomli_w

from phosphene.errors import InputError

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "corpus"
SECONDS = 5.0  # for one file of some KiB
HANG = 30.0  # without a word from the child, which is stuck in C then
BATCH = 2000  # files that a child reads
MEMORY = 512 << 20  # bytes that a child may take beyond what it has
LONGEST = 1200  # letters of an error

# --- What is read


@dataclass(frozen=True)
class Reader:
    """A reader, and the files that it is fed with.

    Attributes:
        seeds: names in the corpus.
        read: is given the file.
        changes: by what the files are changed, each as often as it is listed.
        share: of all inputs of a run, before it is divided by the sum of all shares.
        writes: whether it unpacks into a temporary folder.
        place: where in a folder of its own the file stands, where that matters.
    """

    name: str
    seeds: tuple[str, ...]
    read: Callable[[Path], object]
    changes: tuple[Change, ...]
    share: float = 1.0
    writes: bool = False
    place: str = ""


Change = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
"""A file, others of its kind, and what comes of them."""


@cache
def _network() -> Any:
    import torch

    import phosphene

    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 5))
    labels = ["cat", "dog", "tabby cat", "horse", "sea horse"]
    return phosphene.open(module, phosphene.Preprocessing(24), labels, name="small")


def _read_mean(path: Path) -> object:
    from phosphene.networks.sources.caffe.mean import read_mean

    return read_mean(path, 3)


def _read_caffemodel(path: Path) -> object:
    from phosphene.networks.sources.caffe.model import open_caffe

    return open_caffe(CORPUS / "net.prototxt", path)


def _read_prototxt(path: Path) -> object:
    from phosphene.networks.sources.caffe.graph import build
    from phosphene.networks.sources.caffe.model import MOST_UNTRAINED, open_caffe
    from phosphene.networks.sources.caffe.text import read_prototxt

    build(read_prototxt(path), MOST_UNTRAINED)
    return open_caffe(path, CORPUS / "net.caffemodel")


def _read_weights(path: Path) -> object:
    from phosphene.networks.weights import read_weights

    return read_weights(path)


def _read_photographs(path: Path) -> object:
    from phosphene.photographs.image_statistics import load_image_statistics

    return load_image_statistics(path).magnitude_for(24, 24)


def _read_activations(path: Path) -> object:
    from phosphene.photographs.activation_files import read_activation_statistics

    return read_activation_statistics(path)


def _read_recipe(path: Path) -> object:
    from phosphene.recipes.recipe import Recipe

    recipe = Recipe.load(path)
    return recipe.for_network("efficientnet_lite0"), recipe.to_toml()


def _read_space(path: Path) -> object:
    from phosphene.tuning.space import load_space

    space = load_space(path)
    return space.text(), space.params_of(space.base)


def _read_description(path: Path) -> object:
    from phosphene.networks.description import read_description
    from phosphene.networks.preprocessing import Preprocessing

    preprocessing = read_description(path).preprocessing(Preprocessing(24))
    return preprocessing and (preprocessing.describe(), preprocessing.mean_pixels)


def _read_labels(path: Path) -> object:
    from phosphene.networks.labels import read_labels

    labels = read_labels(path)
    with suppress(InputError):
        labels.find("cat")
    return labels


def _read_table(path: Path) -> object:
    from phosphene.doctor.photographs import label_by_table, read_photographs

    network = _network()
    return read_photographs(label_by_table(path, network, CORPUS).at_most(64), [network.preprocessing])


def _read_precision(path: Path) -> object:
    from phosphene.networks.speed import precision

    return precision._read()


def _read_run(path: Path) -> object:
    from phosphene.judges.card_files import _run_with

    return _run_with(path.with_name("a.png"), {"unit": "class:1", "seed": 3, "scores": {"y": 2}})


def _read_keras(path: Path) -> object:
    from phosphene.networks.sources.keras.model import open_keras

    return open_keras(path)


def _read_h5(path: Path) -> object:
    """The check of HDF5, which may crash or hang, has a process of its own; here it is this one, and this is said."""
    from phosphene.networks.sources.keras import files as keras_files
    from phosphene.networks.sources.keras import h5check

    with _guarded():
        try:
            wrong = h5check.check(str(path))
        except Exception as error:
            raise InputError("it is no HDF5 file") from error
    if wrong:
        raise InputError(wrong)
    return keras_files.read_h5(path)


def _read_onnx(path: Path) -> object:
    from phosphene.networks.sources.onnx.model import open_onnx

    return open_onnx(path)


def _read_transformers(path: Path) -> object:
    from phosphene.networks.sources.transformers.model import open_transformers

    return open_transformers(path.parent)


def _read_image(path: Path) -> object:
    from phosphene import images

    images.MOST_PIXELS = _MOST_PIXELS
    return images.open_image(path)


def _read_provenance(path: Path) -> object:
    from phosphene import images
    from phosphene.provenance.reading import read_provenance

    images.MOST_PIXELS = _MOST_PIXELS
    return read_provenance(path)


_MOST_PIXELS = 1 << 24  # in place of a bound that lets an image take as much memory as a child may


# --- How files are changed

_NUMBERS = (
    *(0, 1, -1, 2, 3, 127, 128, 255, 256, 1000, 32767, 65535, 65536, 1 << 20, 10**9, 2**31 - 1, -(2**31), 2**32),
    *(2**53, 2**63 - 1, -(2**63), 2**64, 10**30, 0.0, -0.0, 0.5, 1e-9, 1e9, 1e300, -1e300),
)
_WORDS = (
    *(
        "",
        "a",
        "cat",
        "off",
        "none",
        "\0",
        "\x1b[31m",
        "\u202e",
        "../../etc/passwd",
        "/dev/zero",
        "a/" * 300,
        "x" * 5000,
    ),
    *("é", "名", "imagenet", "../im.png", "im.png", "1e400", "nan", "%s%n", "{}", "a.b.c", "class:1"),
)


def bytes_changed(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """One to four changes of bytes anywhere, or near the beginning, where lengths and names are."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        if not changed:
            return b""
        span = len(changed) if dice.random() < 0.6 else min(len(changed), 128)
        at = dice.randrange(span)
        kind = dice.randrange(8)
        if kind == 0:
            changed[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            changed[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
        elif kind == 2:
            del changed[at : at + dice.choice((1, 2, 8, 64))]
        elif kind == 3:
            changed[at:at] = dice.randbytes(dice.choice((1, 2, 8, 64)))
        elif kind == 4:
            piece = changed[at : at + dice.choice((1, 4, 16, 64))]
            changed[at:at] = piece * dice.choice((1, 2, 16, 200))
        elif kind == 5:
            number = dice.choice([number for number in _NUMBERS if isinstance(number, int)])
            width = dice.choice((2, 4, 8))
            changed[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, dice.choice(("little", "big")))
        elif kind == 6:
            del changed[at:]
        else:
            other = dice.choice(others)
            begin = dice.randrange(len(other) + 1)
            changed[at:] = other[begin:]
    return bytes(changed)


_TOKEN = re.compile(rb"[A-Za-z_]+|[-+]?[0-9][0-9.eE+-]*|\s+|.", re.DOTALL)


def text_changed(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Words, numbers and marks swapped, repeated, dropped, or replaced by those of other files and by extreme ones."""
    tokens = _TOKEN.findall(data)
    pool = _TOKEN.findall(dice.choice(others))
    for _ in range(dice.choice((1, 1, 2, 3, 6))):
        if not tokens:
            return b""
        at, kind = dice.randrange(len(tokens)), dice.randrange(7)
        if kind == 0:
            tokens[at] = str(dice.choice(_NUMBERS)).encode()
        elif kind == 1:
            tokens[at] = dice.choice(_WORDS).encode()
        elif kind == 2:
            tokens[at] = tokens[at] * dice.choice((2, 3, 50, 2000))
        elif kind == 3:
            del tokens[at : at + dice.choice((1, 2, 5))]
        elif kind == 4:
            tokens[at:at] = [dice.choice(pool)] if pool else []
        elif kind == 5:
            end = at + dice.randrange(1, 12)
            tokens[at:at] = tokens[at:end] * dice.choice((1, 2, 30))
        else:
            other = dice.randrange(len(tokens))
            tokens[at], tokens[other] = tokens[other], tokens[at]
    return b"".join(tokens)


def tree_changed(dice: random.Random, tree: Any) -> Any:
    """JSON's and TOML's values with one to three of them changed, wherever they are."""
    tree = json.loads(json.dumps(tree, default=str))
    for _ in range(dice.choice((1, 1, 2, 3))):
        places = [(tree, None), *_places(tree)]
        holder, key = dice.choice(places)
        new = _value(dice, holder if key is None else holder[key], places)
        if key is None:
            if dice.random() < 0.1:
                return new
        elif dice.random() < 0.15:
            del holder[key]
        elif isinstance(holder, dict) and dice.random() < 0.2:
            holder[dice.choice([*_WORDS, *(str(place[1]) for place in places)])] = new
        else:
            holder[key] = new
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    todo = [tree]
    while todo:
        node = todo.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            yield node, key
            todo.append(node[key])


def _value(dice: random.Random, old: Any, places: Sequence[tuple[Any, Any]]) -> Any:
    kind = dice.randrange(9)
    if kind < 3 and isinstance(old, int | float) and not isinstance(old, bool):
        return dice.choice((*_NUMBERS, old + 1, -old, old * 1000, old / 3))
    if kind < 4:
        return dice.choice(_NUMBERS)
    if kind < 5:
        return dice.choice(_WORDS)
    if kind < 6:
        return dice.choice((True, False, None, [], {}, "true", [[]], [None], {"": 0}))
    if kind < 7:
        return [old] * dice.choice((0, 1, 2, 3, 100)) if not isinstance(old, dict | list) else [old]
    if kind < 8:
        holder, key = dice.choice(places)
        return json.loads(json.dumps(holder if key is None else holder[key]))
    deep: Any = old
    for _ in range(dice.choice((1, 3, 40, 200))):
        deep = [deep] if dice.random() < 0.5 else {"a": deep}
    return deep


def json_changed(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return json.dumps(tree_changed(dice, json.loads(data))).encode(errors="replace")


def toml_changed(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    try:
        return tomli_w.dumps(_without_none(tree_changed(dice, tomllib.loads(data.decode())))).encode()
    except (TypeError, AttributeError, RecursionError, UnicodeError, ValueError):  # what is no table is no TOML
        return text_changed(dice, data, others)


def _without_none(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    return [_without_none(value) for value in tree if value is not None] if isinstance(tree, list) else tree


def npy_changed(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    length = int.from_bytes(data[8:10], "little")
    header = text_changed(dice, data[10 : 10 + length].rstrip(), others)[:65535]
    return (
        data[:6]
        + dice.choice((b"\1\0", b"\1\0", b"\2\0"))
        + struct.pack("<H", len(header))
        + header
        + data[10 + length :]
    )


def safetensors_changed(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    tree = json.loads(data[8 : 8 + length])
    header = json_changed(dice, json.dumps(tree).encode(), others)
    metadata = tree.get("__metadata__", {})
    if metadata and dice.random() < 0.5:  # texts, of which some are JSON again
        key = dice.choice(list(metadata))
        metadata[key] = text_changed(dice, metadata[key].encode(), [data[8 : 8 + length]]).decode(errors="replace")
        header = json.dumps(tree).encode()
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def zip_changed(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """One record changed by what it is (JSON, or bytes), left out, renamed, or put in twice; with right checksums."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    at = dice.randrange(len(records))
    if dice.random() < 0.7:  # what describes the others
        at = next((i for i, (name, _) in enumerate(records) if name.endswith(("data.pkl", "config.json"))), at)
    name, content = records[at]
    kind = dice.randrange(12)
    if kind == 0:
        del records[at]
    elif kind == 1:
        records.insert(at, (dice.choice((name, f"{name}x", "../x", dice.choice(records)[0])), content))
    elif name.endswith("config.json"):
        records[at] = (name, json_changed(dice, content, [content]))
    elif name.endswith(".pkl"):
        records[at] = (name, pickle_changed(dice, content, [content]))
    else:
        records[at] = (name, bytes_changed(dice, content, [content]))
    method = zipfile.ZIP_DEFLATED if dice.random() < 0.05 else zipfile.ZIP_STORED
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", method) as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in records:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return made.getvalue()


_OPCODES = (
    *(b"K\xff", b"M\xff\xff", b"J\xff\xff\xff\x7f", b"J\x00\x00\x00\x80", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"),
    *(b"N", b"\x88", b"}", b"]", b")", b"(", b"t", b"R", b"b", b"s", b"u", b"a", b"e", b"0", b"2", b"\x85", b"\x86"),
    *(b"\x81", b"Q", b".", b"h\x00", b"q\x00", b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\xff", b"X\xff\xff\xff\xff"),
    *(b"c__builtin__\nbytearray\n", b"ctorch\nTensor\n", b"ctorch._utils\n_rebuild_parameter\n", b"cos\nsystem\n"),
    *(
        b"ccollections\nOrderedDict\n",
        b"ctorch\nSize\n",
        b"ctorch\nfloat32\n",
        b"ctorch\nDoubleStorage\n",
        b"G" + b"\x7f" * 8,
    ),
)


def pickle_changed(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Opcodes of a pickle put in, or in another's place."""
    if dice.random() < 0.3:
        return bytes_changed(dice, data, others)
    changed = data
    for _ in range(dice.choice((1, 1, 2, 4))):
        starts = [match.start() for match in re.finditer(rb"[KJMX(tRqhbsuQ\x85\x86}]", changed)] or [0]
        at = dice.choice(starts)
        changed = changed[:at] + dice.choice(_OPCODES) + changed[at + dice.choice((0, 0, 1, 2)) :]
    return changed


def protobuf_changed(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """One field changed, at any depth, with right lengths around it."""
    fields = _fields(data)
    if not fields:
        return bytes_changed(dice, data, others)
    at = dice.randrange(len(fields))
    number, kind, value = fields[at]
    if kind == 2 and dice.random() < 0.75 and _fields(value):
        fields[at] = (number, kind, protobuf_changed(dice, value, others))
    else:
        what = dice.randrange(5)
        if what == 0:
            del fields[at]
        elif what == 1:
            fields[at:at] = [fields[at]] * dice.choice((1, 2, 100))
        elif what == 2:
            fields[at] = (dice.choice((number, number + 1, dice.randrange(1, 30))), kind, value)
        elif kind == 2:
            word = dice.choice(_WORDS).encode()
            fields[at] = (number, kind, dice.choice((word, bytes_changed(dice, value, others), b"")))
        elif kind == 0:
            fields[at] = (number, kind, _varint(int(dice.choice(_NUMBERS[:22])) % (1 << 64)))
        else:
            fields[at] = (number, kind, dice.randbytes(len(value)))
    parts = []
    for number, kind, value in fields:
        parts += [_varint(number << 3 | kind), _varint(len(value)) if kind == 2 else b"", value]
    return b"".join(parts)


def _fields(data: bytes) -> list[tuple[int, int, bytes]]:
    """The fields of a message: number, wire type, and value in bytes; nothing where it is none."""
    found, at = [], 0
    while at < len(data):
        key, at = _varint_at(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            start = at
            _, at = _varint_at(data, at)
            value = data[start:at]
        else:
            length = {1: 8, 5: 4}.get(kind, -1)
            if kind == 2:
                length, at = _varint_at(data, at)
            value = data[at : at + length] if length >= 0 else b""
            if not number or length < 0 or len(value) < length:
                return []
            at += length
        found.append((number, kind, value))
    return found


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _varint_at(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            break
    return value, at


def h5_changed(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """The model's description or a name changed, by HDF5's own library, of a whole file: on others it may hang."""
    import h5py

    if data not in others:
        return data

    made = io.BytesIO(data)
    with h5py.File(made, "r+") as file:
        config = tree_changed(dice, json.loads(file.attrs["model_config"]))
        file.attrs["model_config"] = json.dumps(config).replace("\\u0000", "")
        if dice.random() < 0.2:
            file.attrs["backend"] = dice.choice(("theano", "jax", ""))
    return made.getvalue()


def png_changed(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """The JSON in a PNG's texts changed, its other chunks changed, dropped or doubled; with right checksums."""
    import zlib

    chunks, at = [], 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    texts = [i for i, (kind, body) in enumerate(chunks) if kind in (b"tEXt", b"iTXt", b"zTXt")]
    at = dice.choice(texts) if texts and dice.random() < 0.7 else dice.randrange(len(chunks))
    kind, body = chunks[at]
    if kind == b"iTXt" and b"{" in body and not body.split(b"\0", 1)[1].startswith(b"\1"):
        begin = body.index(b"{")
        with suppress(ValueError):
            body = body[:begin] + json_changed(dice, body[begin:], others)
    elif dice.random() < 0.2:
        body = body * 2
    else:
        body = bytes_changed(dice, body, others)
    chunks[at : at + 1] = [(kind, body)] * dice.choice((1, 1, 1, 0, 2))
    out = [data[:8]]
    for kind, body in chunks:
        out.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(out)


_TOML = (toml_changed, toml_changed, text_changed, bytes_changed)
_JSON = (json_changed, json_changed, text_changed, bytes_changed)
_PROTOBUF = (protobuf_changed, protobuf_changed, bytes_changed)
_ZIP = (zip_changed, zip_changed, zip_changed, bytes_changed)
_SAFE = (safetensors_changed, safetensors_changed, bytes_changed)

READERS = {
    reader.name: reader
    for reader in (
        Reader("npy", ("mean.npy", "fortran.npy"), _read_mean, (npy_changed, npy_changed, bytes_changed), 2),
        Reader("binaryproto", ("mean.binaryproto",), _read_mean, _PROTOBUF, 2),
        Reader("caffemodel", ("net.caffemodel", "old.caffemodel"), _read_caffemodel, _PROTOBUF, 0.3),
        Reader("prototxt", ("net.prototxt",), _read_prototxt, (text_changed, text_changed, bytes_changed), 0.5),
        Reader("pth", ("new.pth", "training.pt", "old.bin"), _read_weights, (), 1),
        Reader("safetensors", ("weights.safetensors",), _read_weights, _SAFE, 2),
        Reader("photographs", ("photographs.safetensors",), _read_photographs, _SAFE, 1),
        Reader("activations", ("activations.safetensors",), _read_activations, _SAFE, 1),
        Reader("recipe", ("recipe.toml",), _read_recipe, _TOML, 0.5),
        Reader("space", ("space.toml",), _read_space, _TOML, 0.3),
        Reader("description", ("description.toml", "beside.toml"), _read_description, _TOML, 1),
        Reader("labels", ("labels.txt",), _read_labels, (text_changed, bytes_changed), 2),
        Reader("labels_json", ("labels.json", "keras.json"), _read_labels, _JSON, 2),
        Reader("table", ("table.csv", "plain.csv"), _read_table, (text_changed, text_changed, bytes_changed), 1),
        Reader("precision", ("precision.json",), _read_precision, _JSON, 2, place="phosphene/precision.json"),
        Reader("run", ("run.json",), _read_run, _JSON, 2, place="run.json"),
        Reader("keras", ("model.keras",), _read_keras, _ZIP, 0.005, writes=True),
        Reader("h5", ("model.h5",), _read_h5, (h5_changed, bytes_changed), 0.02),
        Reader("onnx", ("net.onnx",), _read_onnx, _PROTOBUF, 0.1),
        Reader("transformers", ("resnet/config.json",), _read_transformers, _JSON, 0.01, place="config.json"),
        Reader("image", ("im.png",), _read_image, (png_changed, bytes_changed), 1),
        Reader("provenance", ("made.png",), _read_provenance, (png_changed, png_changed, bytes_changed), 1),
    )
}


def available(reader: Reader) -> bool:
    """Whether what it needs is installed, and its files are there."""
    needs = {"keras": ["keras", "h5py"], "h5": ["keras", "h5py"], "onnx": ["onnx", "onnx2pytorch"]}
    needs |= {"transformers": ["transformers"], "image": ["phosphene.images"]}
    there = all(importlib.util.find_spec(module) is not None for module in needs.get(reader.name, []))
    return there and all((CORPUS / name).is_file() for name in reader.seeds)


def made(reader: Reader, seed: int, index: int) -> bytes:
    """The file of an index; that of 0 is the seed itself."""
    dice = random.Random(f"{reader.name} {seed} {index}")
    seeds = _seeds(reader)
    data = seeds[index % len(seeds)]
    if index < len(seeds):
        return data
    changes = reader.changes or (_ZIP if data[:2] == b"PK" else (pickle_changed, bytes_changed))
    for _ in range(dice.choice((1, 1, 1, 2))):
        with suppress(Exception):  # a second change may find nothing that it knows
            data = dice.choice(changes)(dice, data, seeds)
    return data[: 1 << 20]


@cache
def _seeds(reader: Reader) -> list[bytes]:
    return [(CORPUS / name).read_bytes() for name in reader.seeds]


# --- Reading, and what goes wrong


@dataclass
class Report:
    """What came of a reader's files.

    Attributes:
        finds: by what went wrong, the smallest file that shows it.
    """

    reader: str
    inputs: int = 0
    refused: int = 0
    read: int = 0
    seconds: float = 0.0
    finds: dict[str, bytes] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: str, data: bytes) -> None:
        self.inputs += 1
        if outcome in ("read", "refused"):
            setattr(self, outcome, getattr(self, outcome) + 1)
            return
        self.counts[outcome] += 1
        if outcome not in self.finds or len(data) < len(self.finds[outcome]):
            self.finds[outcome] = data

    def to_json(self) -> str:
        return json.dumps(vars(self) | {"finds": {wrong: data.hex() for wrong, data in self.finds.items()}})

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        plain = json.loads(text)
        finds = {wrong: bytes.fromhex(data) for wrong, data in plain["finds"].items()}
        return cls(**plain | {"finds": finds, "counts": Counter(plain["counts"])})


class _Late(BaseException):
    """Raised in the reader when its time is over; no `except Exception` of a library keeps it."""


class _Forbidden(BaseException):
    """Raised where a reader does what is none of its business."""


_watched: list[bool] = []  # whether what is read now may write temporary files and start processes


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched:
        return
    writes = _watched[-1]
    if event == "open":
        path, mode, flags = arguments
        path = os.fsdecode(path) if isinstance(path, bytes) else path
        writing = (isinstance(mode, str) and set(mode) & set("wax+")) or (
            isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if writing and isinstance(path, str) and not (writes and path.startswith(tempfile.gettempdir())):
            if path == os.devnull or "__pycache__" in path:
                return
            raise _Forbidden(f"writes {path}")
    elif event in (
        "os.system",
        "os.exec",
        "os.fork",
        "os.posix_spawn",
        "socket.connect",
        "socket.getaddrinfo",
        "pty.spawn",
    ) or (event == "subprocess.Popen" and not writes):
        raise _Forbidden(event)


@contextmanager
def _watching(reader: Reader) -> Iterator[None]:
    if not getattr(_audit, "there", False):
        sys.addaudithook(_audit)
        _audit.there = True  # type: ignore[attr-defined]
    _watched.append(reader.writes)
    try:
        yield
    finally:
        _watched.pop()


# Eight bytes for the index of the file that is read, one for whether a crash is foreseen, one that changes.
_stage: mmap.mmap | None = None


@contextmanager
def _guarded() -> Iterator[None]:
    if _stage is not None:
        _stage[8] = 1
    try:
        yield
    finally:
        if _stage is not None:
            _stage[8] = 0


def outcome(reader: Reader, path: Path) -> str:
    """ "read", "refused", or what went wrong."""

    def late(number: int, frame: object) -> None:
        raise _Late

    if _stage is not None:
        _stage[9] = (_stage[9] + 1) % 256  # a sign of life
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with _watching(reader):
            reader.read(path)
        return "read"
    except InputError as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        return _of_refusal(error)
    except _Late:
        return f"takes over {SECONDS:g} s"
    except _Forbidden as error:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "phosphene" in frame.filename]
        where = f" in {Path(own[-1].filename).name}:{own[-1].name}" if own else ""
        return f"{type(error).__name__}{where}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _of_refusal(error: InputError) -> str:
    text = str(error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or "allocate memory" in str(cause):
            return "asks for too much memory"
        cause = cause.__cause__
    if len(text) > LONGEST:
        return "a text of over a page"
    if "\n" in text or any(unicodedata.category(letter) in ("Cc", "Cf", "Cs") for letter in text):
        return "a text with control characters"
    return "refused" if text.strip() else "no text"


def fuzz(reader: Reader, count: int, seed: int = 0, first: int = 0, seconds: float | None = None) -> Report:
    """Feed a reader in this process; with `seconds`, no longer than so."""
    report = Report(reader.name)
    begin = time.perf_counter()
    with _folder() as folder, _quiet():
        for index in range(first, first + count):
            if seconds is not None and time.perf_counter() - begin > seconds:
                break
            if _stage is not None:
                _stage[:8] = index.to_bytes(8, "little")
            data = made(reader, seed, index)
            path = _put(reader, folder, data)
            report.add(outcome(reader, path), data)
    report.seconds = time.perf_counter() - begin
    return report


def _put(reader: Reader, folder: Path, data: bytes) -> Path:
    """The data as a file of the reader's kind."""
    path = folder / (reader.place or f"input{Path(reader.seeds[0]).suffix}")
    if reader.name == "precision":
        os.environ["XDG_CACHE_HOME"] = str(folder)
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True)
    if reader.name == "transformers" and not path.exists():
        shutil.copytree(CORPUS / "resnet", folder, dirs_exist_ok=True)
    path.write_bytes(data)
    return path


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for a while, in memory where that is possible: most of a small file's time is the disk's."""
    memory = Path("/dev/shm")
    there = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(dir=memory if there else None) as place:
        yield Path(place)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what libraries say of files on the way."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def cut_down(reader: Reader, data: bytes, wrong: str, tries: int = 150) -> bytes:
    """Less of the data with the same outcome."""
    with _folder() as folder, _quiet():
        size = len(data) // 2
        while size and tries > 0:
            at = 0
            while at < len(data) and tries > 0:
                less = data[:at] + data[at + size :]
                tries -= 1
                if outcome(reader, _put(reader, folder, less)) == wrong:
                    data = less
                else:
                    at += size
            size //= 2
    return data


# --- In children


def guarded(reader: Reader, count: int, seed: int, cut: bool = True) -> Report:
    """Feed a reader in child processes.

    Where one ends, those before and behind are read by others, and the file that it ended at by one of its own: only
    if that ends too it is the file's doing, and not of whatever else is on the machine.
    """
    global _stage
    _stage = mmap.mmap(-1, 16)
    total = Report(reader.name)
    begin = time.perf_counter()
    ranges = [(first, min(first + BATCH, count)) for first in range(0, count, BATCH)][::-1]
    while ranges:
        first, end = ranges.pop()
        _stage[:9] = first.to_bytes(8, "little") + b"\0"
        report, died = _in_child(reader, first, end - first, seed, cut)
        reached, foreseen = int.from_bytes(_stage[:8], "little"), _stage[8] == 1
        if report is not None:
            _merge(total, report)
            continue
        alone = [(reached, reached + 1)]
        if foreseen or end - first == 1:
            total.add("refused" if foreseen else died, made(reader, seed, reached))
            alone = []
        rest = [(first, reached), *alone, (reached + 1, end)]
        ranges += [(low, high) for low, high in rest if low < high][::-1]
    total.seconds = time.perf_counter() - begin
    _stage = None
    return total


def _merge(total: Report, report: Report) -> None:
    for name in ("inputs", "refused", "read"):
        setattr(total, name, getattr(total, name) + getattr(report, name))
    total.counts += report.counts
    for wrong, data in report.finds.items():
        if wrong not in total.finds or len(data) < len(total.finds[wrong]):
            total.finds[wrong] = data


def _in_child(reader: Reader, first: int, count: int, seed: int, cut: bool) -> tuple[Report | None, str]:
    """What came of it, or how the child ended."""
    assert _stage is not None
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            faulthandler.disable()
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)
            out = os.open(os.devnull, os.O_WRONLY)
            os.dup2(out, 1)
            os.dup2(out, 2)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            report = fuzz(reader, count, seed, first)
            if cut:
                report.finds = {wrong: cut_down(reader, data, wrong) for wrong, data in report.finds.items()}
            with os.fdopen(writing, "w") as pipe:
                pipe.write(report.to_json())
        except BaseException:
            os._exit(70)
        os._exit(0)
    os.close(writing)
    text = _heard(reading, child)
    _, status = os.waitpid(child, 0)
    if status == 0 and text:
        return Report.from_json(text), ""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return None, "hangs" if number == signal.SIGKILL else f"ends the process ({signal.Signals(number).name})"
    return None, f"ends the process (status {os.WEXITSTATUS(status)})"


def _heard(reading: int, child: int) -> str:
    """What the child writes; it is killed where it stays at one file for too long."""
    import select

    assert _stage is not None
    parts, last, since = [], b"", time.monotonic()
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while True:
            ready, _, _ = select.select([pipe], [], [], 1.0)
            if ready:
                part = pipe.read(1 << 16)
                if not part:
                    return b"".join(parts).decode()
                parts.append(part)
            if bytes(_stage) != last:
                last, since = bytes(_stage), time.monotonic()
            elif time.monotonic() - since > (SECONDS if _stage[8] else HANG):
                os.kill(child, signal.SIGKILL)


# --- The run


def warm(readers: Sequence[Reader]) -> None:
    """Read each reader's own files here, so that children have everything imported; and see that they are read."""
    with _folder() as place, _quiet():
        for reader in readers:
            for index in range(len(reader.seeds)):
                folder = place / f"{reader.name}{index}"
                folder.mkdir()
                with suppress(InputError):
                    reader.read(_put(reader, folder, made(reader, 0, index)))


def table(reports: Sequence[Report]) -> str:
    """The runs as a table in Markdown."""
    lines = ["| reader | inputs | refused | read | finds | inputs/s |", "|---|--:|--:|--:|--:|--:|"]
    everything = Report("all")
    for report in reports:
        _merge(everything, report)
        everything.seconds += report.seconds
    for report in [*reports, everything]:
        wrong = sum(report.counts.values())
        kinds = f" ({len(report.counts)} kinds)" if wrong else ""
        speed = report.inputs / max(report.seconds, 1e-9)
        cells = (f"{report.inputs:,}", f"{report.refused:,}", f"{report.read:,}", f"{wrong:,}{kinds}", f"{speed:,.0f}")
        lines.append(f"| {report.reader} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="feed readers with hostile files")
    parser.add_argument("--reader", choices=READERS, action="append", default=[], help="again for several")
    parser.add_argument("--all", action="store_true", help="all readers, among which the count is shared out")
    parser.add_argument("--count", type=int, default=2000, help="files; with --reader, for each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="readers at a time")
    parser.add_argument("--most", action="append", default=[], metavar="READER=COUNT", help="files of one at most")
    parser.add_argument("--json", type=Path, help="file for the reports, one a line")
    parser.add_argument("--finds", type=Path, default=Path("finds"), help="folder for files that show something")
    asked = parser.parse_args()
    readers = [reader for reader in READERS.values() if asked.all or reader.name in asked.reader]
    left_out = [reader.name for reader in readers if not available(reader)]
    readers = [reader for reader in readers if available(reader)]
    whole = sum(reader.share for reader in readers)
    counts = [round(asked.count * reader.share / whole) if asked.all else asked.count for reader in readers]
    most = {name: int(number) for name, _, number in (text.partition("=") for text in asked.most)}
    counts = [min(count, most.get(reader.name, count)) for reader, count in zip(readers, counts, strict=True)]
    warm(readers)
    reports = _all(readers, counts, asked.seed, asked.jobs)
    print(table(reports))
    if asked.json:
        asked.json.write_text("".join(f"{report.to_json()}\n" for report in reports))
    if left_out:
        print(f"\nleft out: {', '.join(left_out)}")
    for report in reports:
        for wrong, number in report.counts.most_common():
            data = report.finds[wrong]
            name = re.sub(r"\W+", "_", f"{report.reader}_{wrong}")[:80] + hashlib.sha256(data).hexdigest()[:6]
            asked.finds.mkdir(parents=True, exist_ok=True)
            file = asked.finds / f"{name}{Path(READERS[report.reader].seeds[0]).suffix}"
            file.write_bytes(data)
            print(f"\n{report.reader}: {wrong} ({number:,} files): {file}")
    return int(any(report.counts for report in reports))


def _all(readers: Sequence[Reader], counts: Sequence[int], seed: int, jobs: int) -> list[Report]:
    if jobs == 1:
        reports = []
        for reader, count in zip(readers, counts, strict=True):
            reports.append(guarded(reader, count, seed))
            print(f"{reader.name}: {count:,} in {reports[-1].seconds:.0f} s", file=sys.stderr, flush=True)
        return reports
    from multiprocessing.pool import ThreadPool

    # Each is in a process of its own, that has `_stage` for itself.
    with ThreadPool(jobs) as pool:
        command = [sys.executable, __file__]
        return pool.starmap(_alone, [(command, *each, seed) for each in zip(readers, counts, strict=True)])


def _alone(command: Sequence[str], reader: Reader, count: int, seed: int) -> Report:
    import subprocess

    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import fuzz; reader = fuzz.READERS[sys.argv[2]]; "
        "fuzz.warm([reader]); report = fuzz.guarded(reader, int(sys.argv[3]), int(sys.argv[4])); "
        "print(report.to_json())"
    )
    arguments = [str(Path(__file__).parent), reader.name, str(count), str(seed)]
    done = subprocess.run([command[0], "-c", code, *arguments], stdout=subprocess.PIPE, check=True)
    return Report.from_json(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
