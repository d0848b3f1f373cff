"""Many runs leave nothing behind, as bench/soak.py sees over hours, and ask nothing of the network."""

import gc
import os
import socket
import sys
from pathlib import Path

import psutil
import pytest

from phosphene import Network
from phosphene.cli.program import main

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))

from soak import MARKS, Marks, Reading, ascend_once, is_flat, table

pytestmark = pytest.mark.slow


def networks():
    gc.collect()
    return sum(isinstance(each, Network) for each in gc.get_objects())


@pytest.mark.skipif(os.name != "posix", reason="counts file descriptors")
def test_images_leave_no_files_threads_and_networks_behind(tmp_path):
    me = psutil.Process()
    children = me.children(recursive=True)  # of other tests
    for number in range(10):
        ascend_once(number, tmp_path / "x")
    files, threads, before = me.num_fds(), me.num_threads(), networks()
    for number in range(30):
        ascend_once(number, tmp_path / str(number % 5))  # each of a network of its own
    assert networks() <= before
    assert (me.num_fds(), me.num_threads()) <= (files, threads)
    assert [child for child in me.children(recursive=True) if child not in children] == []


def test_the_usual_commands_ask_nothing_of_the_network(tmp_path, monkeypatch, capsys):
    def refused(*asked, **options):
        raise AssertionError(f"asked for {asked}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    assert main(["classes", "teddy", "-r", "naive", "--steps", "1", "-o", str(tmp_path / "out")]) == 0
    (picture,) = (tmp_path / "out").glob("*teddy*.png")
    assert main(["judge", str(picture)]) == 0
    assert main(["show", str(picture)]) == 0
    assert main(["recipes"]) == main(["networks", "*lite0*"]) == 0


def test_what_grows_is_not_flat():
    flat = [Reading(share, 1000, 10, 4, 2) for share in MARKS]
    assert is_flat(flat)
    assert is_flat([*flat[:-1], Reading(1.0, 1050, 9, 4, 2)])
    assert is_flat([Reading(0.0, 1, 1, 1, 0), *flat[1:]])  # what the first images take is not counted
    for last in (
        Reading(1.0, 1051, 10, 4, 2),
        Reading(1.0, 1, 11, 4, 2),
        Reading(1.0, 1, 1, 5, 2),
        Reading(1.0, 1, 1, 1, 3),
    ):
        assert not is_flat([*flat[:-1], last])
        assert "NOT FLAT" in table("x", [*flat[:-1], last], 1)


def test_readings_are_taken_at_shares_of_the_work():
    marks = Marks(60, psutil.Process())
    for done in range(61):
        marks(done)
    assert [reading.share for reading in marks.readings] == list(MARKS)
    assert all(reading.memory > 2**20 and reading.threads >= 1 for reading in marks.readings)
