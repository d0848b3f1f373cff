"""What a file of `torch.save` would have torch make, found before torch makes it.

`torch.load(weights_only=True)` runs no code, but it believes sizes: a file of 42 bytes may ask for a terabyte, and
some versions read a storage that is declared larger than its record beyond its end.  So the pickle in it is first gone
through with stand-ins for all that it names, which do nothing but compare sizes with what is in the file.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from phosphene.errors import InputError, input_errors_for
from phosphene.files import check_file, open_zip

MAX_PICKLE = 64 << 20  # bytes of names and shapes, without the numbers; a network of 1,000 tensors has a tenth of a MiB
SLACK = 1 << 20  # bytes beyond the file's own that a file may ask for
_ZIP = b"PK\x03\x04"


def check_checkpoint(path: Path, origin: str) -> None:
    """Go through a file of `torch.save`, new (a zip archive) or old.

    Raises:
        InputError: it is damaged, or asks for more than is in it.
    """
    size = check_file(path, origin)
    with input_errors_for(origin, "a state dictionary that torch saved"), path.open("rb") as file:
        if file.read(4) == _ZIP:
            _check_archive(path, origin, size)
            return
        file.seek(0)
        source, storages = _BoundedReader(file), dict[str, int]()
        if _CheckingUnpickler(source, origin, size, storages).load() != torch.serialization.MAGIC_NUMBER:
            raise InputError(f"{origin} cannot be read: expected a state dictionary that torch saved")
        for _ in range(4):  # a version, the machine's byte order, the object, the keys of its storages
            _CheckingUnpickler(source, origin, size, storages).load()


def _check_archive(path: Path, origin: str, size: int) -> None:
    with open_zip(path, origin) as archive:
        entries = archive.infolist()
        if any(entry.filename.endswith("/constants.pkl") for entry in entries):
            raise InputError(f"{origin} is a TorchScript program, which is code: expected a state dictionary")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise InputError(f"{origin} has compressed records: expected those that torch saves, which are not")
        # Torch's reader takes the folder from the first name, and looks for names in any case.
        names = [entry.filename.lower().partition("/") for entry in entries]
        records = {name: entry for (_, _, name), entry in zip(names, entries, strict=True)}
        if (
            len({folder for folder, _, _ in names}) > 1
            or len(records) < len(entries)
            or sum(entry.file_size for entry in entries) > size
        ):
            raise InputError(f"{origin} declares more than it holds: it is damaged")
        if "data.pkl" not in records or records["data.pkl"].file_size > MAX_PICKLE:
            raise InputError(f"{origin} cannot be read: expected a state dictionary that torch saved")
        pickled = archive.read(records["data.pkl"])
    held = {name.removeprefix("data/"): entry.file_size for name, entry in records.items() if name.startswith("data/")}
    _CheckingUnpickler(_BoundedReader(io.BytesIO(pickled)), origin, size, {}, held).load()


class _BoundedReader:
    """A file for the unpickler, of which it takes no more than `MAX_PICKLE` bytes."""

    def __init__(self, file: IO[bytes]):
        self._file, self._left = file, MAX_PICKLE

    def read(self, count: int) -> bytes:
        return self._took(self._file.read(min(count, self._left)) if count >= 0 else b"")

    def readline(self) -> bytes:
        return self._took(self._file.readline(self._left))

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _took(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data


class _Storage(NamedTuple):
    """The numbers of a tensor: how many bytes they are, and each is."""

    bytes: int
    itemsize: int


class _InertObject:
    """Stands for anything that a pickle names or makes; whatever is done with it, nothing is."""

    def __new__(cls, *args: object, **kwargs: object) -> _InertObject:
        _check_arguments(args)
        return object.__new__(cls if isinstance(cls, type) else _InertObject)

    def __init__(self, *args: object, **kwargs: object):
        pass

    def __call__(self, *args: object, **kwargs: object) -> _InertObject:
        _check_arguments(args)
        return self

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    def extend(self, values: object) -> None:
        pass

    def add(self, value: object) -> None:
        pass


def _check_arguments(values: tuple[object, ...]) -> None:
    """Whole numbers given to a type are a size: a `bytearray` of so many zeros."""
    if math.prod(value for value in values if type(value) is int) > SLACK:
        raise ValueError("it asks for more than it holds")


class _StorageType(_InertObject):
    """Stands for a type of numbers, each of so many bytes."""

    def __init__(self, itemsize: int = 1):
        self.itemsize = itemsize


_DTYPES = {name: getattr(torch, name).itemsize for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)}
_STORAGES = {
    f"{name}Storage": itemsize
    for itemsize, names in {
        1: ("Byte", "Char", "Bool", "QInt8", "QUInt8", "Untyped"),
        2: ("Short", "Half", "BFloat16"),
        4: ("Int", "Float", "QInt32"),
        8: ("Long", "Double", "ComplexFloat"),
        16: ("ComplexDouble",),
    }.items()
    for name in names
}


# The unpickler in Python, since the one in C allocates what a memo's index asks for.
class _CheckingUnpickler(pickle._Unpickler):
    """Goes through a pickle.

    Args:
        source: where it is read from.
        origin: for messages.
        size: bytes of the file.
        storages: is told the bytes of each that it meets, by its key.
        held: the bytes of each record, by the storage's key; without, all are together no larger than the file.
    """

    def __init__(
        self,
        source: _BoundedReader,
        origin: str,
        size: int,
        storages: dict[str, int],
        held: dict[str, int] | None = None,
    ):
        super().__init__(source, encoding="utf-8")
        self.origin, self.size, self.storages, self.held = origin, size, storages, held
        self.taken = 0

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor"):
            return self._tensor
        if name == "_rebuild_from_type_v2":
            return self._of_type
        if module in ("torch", "torch.storage") and (name in _STORAGES or name in _DTYPES):
            return _StorageType(_STORAGES.get(name) or _DTYPES[name])
        return _InertObject()

    def persistent_load(self, pid: Any) -> _Storage:
        kind, type_, key, _, count, *_ = pid
        if kind != "storage" or not isinstance(type_, _StorageType) or type(count) is not int or count < 0:
            raise self._wrong("a storage of no size")
        taken = count * type_.itemsize
        if self.held is None:
            self.taken += max(0, taken - self.storages.get(str(key), 0))
            self.storages[str(key)] = taken
            if self.taken > self.size:
                raise self._wrong(f"{self.taken:,} bytes of numbers, and has {self.size:,}")
        elif taken > self.held.get(str(key).lower(), 0):
            raise self._wrong(f"a storage of {taken:,} bytes, and holds {self.held.get(str(key).lower(), 0):,} of it")
        return _Storage(taken, type_.itemsize)

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> _InertObject:
        """A view on a storage: its last number must be in it, and it may repeat only a few."""
        whole = [*size, *stride, offset]
        if not isinstance(storage, _Storage) or any(type(number) is not int or number < 0 for number in whole):
            raise self._wrong("a tensor of no size")
        typed = [value.itemsize for value in rest if isinstance(value, _StorageType)]  # where the storage is of bytes
        count = storage.bytes // (typed or [storage.itemsize])[0]
        last = sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if math.prod(size) and offset + last >= count:
            raise self._wrong(f"a tensor beyond the end of its {count:,} numbers")
        if math.prod(size) > count + SLACK:
            raise self._wrong(f"a tensor of {math.prod(size):,} numbers, and holds {count:,} of it")
        return _InertObject()

    def _of_type(self, build: Any, type_: Any, arguments: Any, state: Any) -> Any:
        return build(*arguments) if callable(build) else _InertObject()

    def _wrong(self, asks: str) -> InputError:
        return InputError(f"{self.origin} asks for {asks}: it is damaged, or no weights file")


# What stands beside the weights in the files of many trainings


class _IgnoredObject:
    """Stands for something that is of no use for weights, such as the options of a training, and does nothing."""

    def __init__(self, *args: object, **kwargs: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


IGNORED_GLOBALS = tuple(
    type(name, (_IgnoredObject,), {"__module__": module})
    for module, names in {
        "argparse": ("Namespace",),
        "pathlib": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
        "pathlib._local": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
        "numpy": ("dtype",),
        "numpy.core.multiarray": ("scalar",),
        "numpy._core.multiarray": ("scalar",),
    }.items()
    for name in names
)
"""Classes of the names under which files have them, for torch to make in their place."""
