"""Several runs on one atlas share its units out, and none waits for a dead one."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from test_atlas import own, planned

from phosphene import InputError
from phosphene.api import ascend as ascend_module
from phosphene.atlas import claims, missing, work_queue
from phosphene.atlas import plan as atlas_plan
from phosphene.atlas import work as atlas_work
from phosphene.atlas import worker as atlas_worker
from phosphene.atlas.claims import Claims
from phosphene.atlas.missing import WorkItem
from phosphene.atlas.store import Store
from phosphene.atlas.worker import Worker
from phosphene.cli.program import main
from phosphene.devices.callbacks import Callbacks


@pytest.fixture
def store(tmp_path):
    return planned(own(tmp_path, "net", 0), tmp_path / "a", classes=[], layers=["3"], frames=2)


@pytest.fixture(autouse=True)
def _one_opens_at_a_time(monkeypatch):
    """The network of these tests is drawn from the generator that all threads share."""
    lock, real = threading.Lock(), atlas_plan.AtlasPlan.open

    def opened(plan):
        with lock:
            return real(plan)

    monkeypatch.setattr(atlas_plan.AtlasPlan, "open", opened)


@pytest.fixture
def bare(tmp_path):
    """A store without an atlas: claims need none."""
    return Store(tmp_path / "bare")


def files(store):
    return sorted(path.name for path in Path(store.root, "claims").glob("*"))


def test_a_unit_is_one_runs_alone_until_it_gives_it_back(bare):
    with Claims(bare) as first, Claims(bare) as second:
        assert first.take("3", [0, 1, 2]) == [0, 1, 2]
        assert first.take("3", [1]) == [1]  # it is its own already
        assert second.take("3", [1, 2, 3]) == [3]
        assert second.take("4", [1]) == [1]  # of another group
        assert second.unclaimed([("3", 0), ("3", 9)]) == [("3", 9)]
        assert Claims(bare).count() == 5
        first.release([("3", 1)])
        assert second.take("3", [0, 1, 2]) == [1]
    assert not Path(bare.root, "claims").exists()


@pytest.mark.parametrize("place", ["{}", "memory://claims"])
def test_of_many_that_ask_at_once_each_unit_goes_to_one(tmp_path, place):
    bare = Store(place.format(tmp_path / "bare"))
    together = threading.Barrier(4)
    taken = []

    def take(mine):
        together.wait(30)
        taken.append(mine.take("3", range(20)))

    runs = [Claims(bare).__enter__() for _ in range(4)]
    threads = [threading.Thread(target=take, args=(mine,)) for mine in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(index for each in taken for index in each) == list(range(20))
    for mine in runs:
        mine.__exit__()
    assert bare.names("claims") == []


class Elsewhere:
    """A run of another machine that shows no life any more, and whose clock is as far off as it likes."""

    def __init__(self, store, monkeypatch, lease=1.0):
        monkeypatch.setattr(claims, "machine_digest", lambda: "elsewhere")
        self.claims = Claims(store, lease)
        self.claims.show_life()
        self.claims.take("3", [0, 1])
        monkeypatch.setattr(claims, "machine_digest", lambda: "here")
        monkeypatch.setattr(claims, "REMEMBERED", 0.0)


@pytest.mark.slow
def test_what_a_run_elsewhere_has_left_is_taken_over_after_its_lease_and_by_one_run(bare, monkeypatch):
    dead = Elsewhere(bare, monkeypatch)
    with Claims(bare) as first, Claims(bare) as second:
        assert first.take("3", [0, 1, 2]) == [2]
        time.sleep(1.1)
        assert first.take("3", [0]) == [0]
        assert second.take("3", [0, 1]) == [1]
        assert dead.claims.held.keys() == {("3", 0), ("3", 1)}  # it thinks so still
        dead.claims.release([("3", 0)])  # and gives back its own claim alone
        assert second.take("3", [0]) == []
    assert not Path(bare.root, "claims").exists()  # what it left is cleared away


@pytest.mark.slow
@pytest.mark.parametrize("skew", [-1e6, 1e6])
def test_a_clock_that_is_wrong_neither_takes_a_living_runs_units_nor_keeps_a_dead_ones(bare, monkeypatch, skew):
    dead = Elsewhere(bare, monkeypatch)
    run = Path(bare.root, "claims", f"{dead.claims.name}.run")
    monkeypatch.setattr(time, "time", lambda real=time.time: real() + skew)  # of the machine that looks
    with Claims(bare) as mine:
        assert mine.take("3", [0]) == []
        os.utime(run, (2e10, 2e10))  # of the one that writes
        assert mine.take("3", [0]) == []
        time.sleep(1.1)
        assert mine.take("3", [0]) == [0]


def begun(function, place):
    """A process forked of one that has torch imported and has run nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["phosphene.atlas", "PIL.PngImagePlugin", "PIL.WebPImagePlugin", "pyarrow.parquet"])
    process = context.Process(target=function, args=(place,))
    process.start()
    return process


@pytest.mark.parametrize("waited", [True, False], ids=["gone", "zombie"])
def test_a_run_of_this_machine_whose_process_has_ended_is_not_waited_for(bare, monkeypatch, waited):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with monkeypatch.context() as there:
            there.setattr(claims, "process_identity", lambda: (process.pid, psutil.Process(process.pid).create_time()))
            dead = Claims(bare)
            dead.show_life()
            dead.take("3", range(3))
        monkeypatch.setattr(claims, "REMEMBERED", 0.0)
        with Claims(bare) as mine:
            assert mine.take("3", range(4)) == [3]
            process.kill()
            if waited:
                process.wait()
            else:
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
            assert mine.take("3", range(4)) == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize(
    "said",
    [b"", b"x" * 32, b"\xff\xfe", b"../../atlas.json", b"0" * 32],
    ids=["empty", "words", "bytes", "path", "none"],
)
def test_claims_of_nobody_hold_up_nothing_for_longer_than_a_lease(bare, monkeypatch, said):
    monkeypatch.setattr(claims, "LEASE", 0.2)
    bare.write(claims.claim_name(("3", 0), 7), said)
    bare.write("claims/a stray", b"")
    os.mkdir(bare.path(claims.claim_name(("3", 1), 0)))
    os.symlink(bare.path("claims/a stray"), bare.path(claims.claim_name(("3", 2), 0)))
    for name, data in (("1" * 32, b"[" * 2000), ("2" * 32, b'{"process": [1e999, {}], "lease": -1}')):
        bare.write(f"claims/{name}.run", data)
        bare.write(claims.claim_name(("3", 3 + int(name[0])), 0), name.encode())
    with Claims(bare) as mine:
        mine.take("3", range(6))
        time.sleep(0.6)
        assert mine.take("3", range(6)) == [0, 1, 2, 3, 4, 5]


def test_a_lease_has_bounds(bare):
    with pytest.raises(InputError, match=r"a lease of 0\.5 seconds: expected 1 to 600"):
        Claims(bare, 0.5)


@pytest.mark.slow
def test_two_runs_make_every_unit_once_together(store, monkeypatch):
    monkeypatch.setattr(missing, "LARGEST_BATCH", 4)
    monkeypatch.setattr(work_queue, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(atlas_work, "LOOK_EVERY", 0.1)
    made = []
    real = Store.put

    def put(self, group, index, *arguments):
        made.append((threading.current_thread(), index))
        return real(self, group, index, *arguments)

    monkeypatch.setattr(Store, "put", put)
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(atlas_work.run(store.place))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(index for _, index in made) == list(range(40))
    assert sum(report.image_count for report in reports) == 40
    assert all(report.image_count >= 4 for report in reports)  # they shared it
    assert len(store.rows()) == 40
    assert store.verify() == []
    assert files(store) == []


@pytest.mark.slow
def test_a_run_ends_when_another_has_made_the_last_units_and_makes_what_that_one_could_not(store, monkeypatch):
    monkeypatch.setattr(work_queue, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(atlas_work, "LOOK_EVERY", 0.1)
    with Claims(store) as other:
        other.take("3", range(40))
        run = threading.Thread(target=lambda: reports.append(atlas_work.run(store.place)))
        reports: list = []
        run.start()
        maker = Worker(store.place)
        assert maker.make(WorkItem("3", tuple(range(10)))).image_count == 10
        assert run.is_alive()
        assert "40 units are being made" in _status(store)
        other.release([("3", index) for index in range(40)])
        run.join(60)
    assert reports[0].image_count == 30
    assert len(store.rows()) == 40


def _status(store):
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["atlas", "status", store.place, "--json"]) == 0
    found = json.loads(printed.getvalue()[: printed.getvalue().rindex("}") + 1])
    return f"{found['claimed']} units are being made"


@pytest.mark.slow
def test_of_two_processes_one_is_killed_and_the_other_makes_all(store):
    processes = [begun(_slow_run, store.place) for _ in range(2)]
    end = time.monotonic() + 60
    while len(list(Path(store.root, "images").rglob("*.png"))) < 3:
        assert time.monotonic() < end
        time.sleep(0.02)
    processes[0].kill()
    processes[0].join()
    finished = {path: path.stat().st_mtime_ns for path in Path(store.root, "images").rglob("*.png")}
    assert len(finished) < 40
    processes[1].join(60)
    assert processes[1].exitcode == 0
    assert len(store.rows()) == 40
    assert store.verify() == []
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert files(store) == []


def _slow_run(place):
    missing.LARGEST_BATCH, atlas_work.LOOK_EVERY, work_queue.LOOK_EVERY = 4, 0.1, 0.1
    real = Store.put

    def put(*arguments):
        time.sleep(0.15)
        return real(*arguments)

    Store.put = put
    atlas_work.run(place)


@pytest.mark.slow
def test_a_unit_is_there_as_soon_as_it_is_finished(store, monkeypatch):
    """While the others of its piece are still in work: a kill costs those at most."""
    there = []
    real = ascend_module.ascend

    def ascend(network, units, recipe, **options):
        def keep(picture):
            options["callbacks"].picture(picture)
            end = time.monotonic() + 30
            while store.find_row("3", picture.unit.channel, 0) is None:
                assert time.monotonic() < end
            there.append(picture.unit.channel)

        return real(network, units, recipe, **{**options, "callbacks": Callbacks(picture=keep)})

    monkeypatch.setattr(atlas_worker, "ascend", ascend)
    assert atlas_work.run(store.place).image_count == 40
    assert sorted(there) == list(range(40))


def test_images_are_indexed_on_the_way_as_well(store, monkeypatch):
    parts = []
    monkeypatch.setattr(atlas_worker, "INDEX_EVERY", 0.0)
    monkeypatch.setattr(
        atlas_worker.ResultWriter,
        "index",
        lambda self, real=atlas_worker.ResultWriter.index: (real(self), parts.append(1)),
    )
    maker = Worker(store.place)
    assert maker.make(WorkItem("3", tuple(range(8)))).image_count == 8
    assert len(parts) > 4
    assert len(store.rows()) == 8


def test_what_memory_does_not_suffice_for_beside_those_in_work_is_judged_after_them(store, monkeypatch):
    calls = []
    real = Worker.judge

    def judge(self, pictures, network):
        calls.append(len(pictures))
        if len(calls) == 1:
            raise RuntimeError("CUDA out of memory")
        real(self, pictures, network)

    monkeypatch.setattr(Worker, "judge", judge)
    maker = Worker(store.place)
    assert maker.make(WorkItem("3", tuple(range(4)))).image_count == 4
    assert all(row["robustness"] is not None for row in store.rows())


def test_judging_leaves_the_images_and_the_network_as_they_are(store):
    maker = Worker(store.place)
    digest = maker.network.digest
    maker.make(WorkItem("3", (0, 5)))
    assert maker.network.digest == maker.twin.digest == digest
    pointers = [[each.data_ptr() for each in network.module.parameters()] for network in (maker.network, maker.twin)]
    assert pointers[0] == pointers[1]  # their weights are in memory once
