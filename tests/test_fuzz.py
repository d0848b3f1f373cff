"""Hostile files for every reader, by `bench/fuzz.py`: all are read, or refused in one short sentence."""

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench" / "fuzz.py"
COUNT = 500
SLOW = {"keras": 10, "h5": 30, "transformers": 10, "onnx": 60, "caffemodel": 100, "prototxt": 250, "space": 250}
"""Files for readers that build a network for each, or a recipe for each value; more of them take longer than a test may
(`bench/fuzz.py` has no such limit)."""


def _module():
    spec = importlib.util.spec_from_file_location("fuzz", BENCH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module


fuzz = _module()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What came of them all, from a process that has no threads: its children can go on where one of them ends."""
    folder = tmp_path_factory.mktemp("fuzz")
    readers = [argument for name in fuzz.READERS for argument in ("--reader", name)]
    most = [argument for name, count in SLOW.items() for argument in ("--most", f"{name}={count}")]
    found = folder / "reports"
    where = ["--finds", str(folder / "finds"), "--json", str(found)]
    done = subprocess.run(
        [sys.executable, str(BENCH), "--count", str(COUNT), *readers, *most, *where],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.is_file(), done.stderr
    return {report.reader: report for report in map(fuzz.Report.from_json, found.read_text().splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz.READERS)
def test_a_reader_refuses_hostile_files_in_a_sentence_or_reads_them(name, reports):
    if not fuzz.available(fuzz.READERS[name]):
        pytest.skip(f"what {name} needs is not there")
    report = reports[name]
    assert not report.counts, f"{dict(report.counts)}: see bench/fuzz.py --reader {name}"
    assert report.inputs == SLOW.get(name, COUNT)
    assert report.refused or name in ("precision", "run"), "these are asked for what they have, and may have nothing"
    assert report.read, "not even the corpus's own files are read"


@pytest.mark.parametrize("name", fuzz.READERS)
def test_the_file_of_an_index_is_always_the_same_and_files_differ(name):
    reader = fuzz.READERS[name]
    if not fuzz.available(reader):
        pytest.skip(f"what {name} needs is not there")
    if name == "h5":
        pytest.skip("HDF5's library writes times into its files")
    first = [fuzz.made(reader, 3, index) for index in range(30)]
    assert first == [fuzz.made(reader, 3, index) for index in range(30)]
    assert len(set(first)) > 15


def _raises(path):
    raise KeyError("a")


def _waits(path):
    while True:
        pass


def _takes_memory(path):
    return bytes(4 << 30)


def _writes(path):
    path.with_name("other").write_text("a")


def _dies(path):
    os.kill(os.getpid(), 11)


def _shouts(path):
    error = fuzz.InputError("a")
    error.args = ("a\x1b[31m",)
    raise error


@pytest.mark.parametrize(
    ("read", "wrong"),
    [
        (_raises, "KeyError"),
        (_waits, "takes over"),
        (_takes_memory, "MemoryError"),
        (_writes, "writes"),
        (_dies, r"ends the process \(SIGSEGV\)"),
        (_shouts, "control characters"),
    ],
)
def test_what_a_reader_must_not_do_is_found(read, wrong, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.3)
    reader = fuzz.Reader("npy", ("mean.npy",), read, (fuzz.bytes_changed,))
    report = fuzz.guarded(reader, 2, seed=0, cut=False)
    assert report.inputs == 2
    assert not report.read
    (found,) = report.counts
    assert re.search(wrong, found), found


def test_what_ends_a_process_once_is_not_the_files_doing_and_no_file_is_lost(tmp_path):
    def read(path):
        if not (tmp_path / "once").exists():
            (tmp_path / "once").touch()
            os.kill(os.getpid(), 9)

    reader = fuzz.Reader("npy", ("mean.npy",), read, (fuzz.bytes_changed,), writes=True)
    report = fuzz.guarded(reader, 50, seed=0, cut=False)
    assert report.inputs == report.read == 50


@pytest.mark.slow
def test_files_that_end_the_process_are_counted_and_those_around_them_read():
    def read(path):
        if len(path.read_bytes()) % 3 == 0:
            os.kill(os.getpid(), 11)

    reader = fuzz.Reader("npy", ("mean.npy",), read, (fuzz.bytes_changed,))
    report = fuzz.guarded(reader, 30, seed=0, cut=False)
    expected = [len(fuzz.made(reader, 0, index)) % 3 for index in range(30)].count(0)
    assert 0 < expected < 30
    assert report.inputs == 30
    assert report.read == 30 - expected
    assert report.counts == {"ends the process (SIGSEGV)": expected}


def test_a_find_is_cut_down_to_what_shows_it(tmp_path):
    def read(path):
        assert b"x" not in path.read_bytes()

    reader = fuzz.Reader("npy", ("mean.npy",), read, (fuzz.bytes_changed,))
    path = tmp_path / "input"
    path.write_bytes(b"x")
    wrong = fuzz.outcome(reader, path)
    assert wrong.startswith("AssertionError")
    assert fuzz.cut_down(reader, b"a" * 100 + b"x" + b"b" * 100, wrong) == b"x"


def test_changes_of_an_archive_keep_it_one(tmp_path):
    data = (fuzz.CORPUS / "new.pth").read_bytes()
    for seed in range(20):
        path = tmp_path / "a.zip"
        path.write_bytes(fuzz.zip_changed(fuzz.random.Random(seed), data, [data]))
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
