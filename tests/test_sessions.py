"""A tab's process is bounded: whatever it does, the server goes on, says what happened, and leaves nothing behind."""

import asyncio
import gc
import os
import subprocess
import sys
import time

import hostile_processes as hostile
import psutil
import pytest

from phosphene import Recipe
from phosphene.studio.bounds import Bounds, ending, machine_memory
from phosphene.studio.messages import (
    AscendCommand,
    CommandFailed,
    ImageFinished,
    NetworkOpened,
    OpenCommand,
    ScoreCard,
    StudioConfig,
)
from phosphene.studio.sessions import RunSlots, Session

pytestmark = pytest.mark.slow  # each starts a process

ROOM = Bounds(memory=2**40)
posix = pytest.mark.skipif(os.name != "posix", reason="has no process groups")


class Talk:
    """A session, all that was heard of it, and why it was lost."""

    def __init__(self, target, bounds=ROOM, given=None):
        self.heard, self.why = [], None
        self.session = Session(given, bounds, self.heard.append, self.lost, target)

    def lost(self, why):
        self.why = why

    async def until(self, done, seconds=60):
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, (self.heard, self.why)
            await asyncio.sleep(0.02)


def talked(target, *commands, bounds=ROOM, given=None, others=()):
    """A talk with a process until it is lost."""

    async def talk():
        one = Talk(target, bounds, given)
        for command in commands:
            one.session.tell(command)
        await one.until(lambda: one.why is not None)
        return one

    return asyncio.run(talk())


def test_a_process_that_hangs_is_ended_and_the_others_go_on():
    async def talk():
        bad, good = Talk(hostile.hangs, Bounds(2**40, silence=1)), Talk(hostile.answers)
        bad.session.tell("something")
        await bad.until(lambda: bad.why)
        assert bad.why == "it gave no sign of life for 1 seconds"
        assert not bad.session.process.is_running()
        good.session.tell("still there?")
        await good.until(lambda: good.heard == ["still there?"])
        assert good.why is None
        good.session.close()
        await good.until(lambda: not good.session.process.is_running())
        await asyncio.sleep(0.3)
        assert good.why is None  # it was told to end

    asyncio.run(talk())


def test_one_that_has_nothing_to_do_may_be_silent_and_opening_takes_its_time():
    async def talk():
        idle, opening = (Talk(hostile.hangs, Bounds(2**40, opening=600, silence=0.5)) for _ in range(2))
        opening.session.tell(OpenCommand("a network to be downloaded"))
        await asyncio.sleep(1.5)
        assert (idle.why, opening.why) == (None, None)
        assert (idle.session.busy, opening.session.busy) == (False, True)
        idle.session.close()
        opening.session.close()
        for one in (idle, opening):  # which do not listen to that
            await one.until(one.session.ended.is_set)
            assert not one.session.process.is_running()

    asyncio.run(talk())


@posix
@pytest.mark.parametrize("target", [hostile.allocates, hostile.allocates_in_a_child])
def test_one_that_allocates_without_end_is_ended_with_its_children(target):
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    lost = talked(target, bounds=Bounds(400 * 2**20))
    assert lost.why.startswith("it took ")
    assert lost.why.endswith("GiB of memory, and may take 0.4")
    assert gone(before)


def gone(before):
    """Whether all processes that were begun since have ended."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        left = {child.pid for child in psutil.Process().children(recursive=True) if "spawn" in " ".join(line(child))}
        if not left - before:
            return True
        time.sleep(0.05)
    return False


def line(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_one_that_dies_is_noticed_at_once_with_what_it_said_before():
    lost = talked(hostile.exits)
    assert lost.heard == ["farewell"]
    assert lost.why == "it ended by itself, with status 3"
    assert talked(hostile.sends_garbage).why  # which is no message

    async def talk():
        one = Talk(hostile.answers)
        one.session.tell("begun?")
        await one.until(lambda: one.heard)
        one.session.process.kill()
        begun = time.monotonic()
        await one.until(lambda: one.why)
        return time.monotonic() - begun, one.why

    seconds, why = asyncio.run(talk())
    assert seconds < 2
    assert why == "it was ended by SIGKILL, maybe for want of memory" or os.name != "posix"


@posix
def test_what_it_leaves_behind_is_ended_too():
    async def talk():
        one = Talk(hostile.leaves_a_child)
        group = one.session.process.pid
        await one.until(lambda: one.why)
        assert one.why == "it ended by itself, with status 0"
        for _ in range(100):
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return
            await asyncio.sleep(0.05)
        pytest.fail("its child lives")

    asyncio.run(talk())


def test_nothing_of_a_session_stays():
    async def talk(count):
        talks = [Talk(hostile.answers) for _ in range(count)]
        for one in talks:
            one.session.tell("x")
            await one.until(lambda one=one: one.heard)
            one.session.close()
            await one.until(one.session.ended.is_set)

    me = psutil.Process()
    asyncio.run(talk(1))
    files, threads = me.num_fds(), me.num_threads()
    asyncio.run(talk(6))
    gc.collect()
    time.sleep(0.2)
    assert (me.num_fds(), me.num_threads()) <= (files, threads)


@posix
def test_a_network_that_prints_asks_for_all_memory_or_hangs_costs_its_own_page_alone(tmp_path, capfd):
    mode = tmp_path / "mode"
    given = StudioConfig(out=str(mode), memory=2**33)
    quick = Recipe.load("naive").override({"steps": 2})

    async def talk():
        one = Talk(hostile.works_with_a_bad_network, Bounds(2**40, silence=2), given)
        one.session.tell(OpenCommand("bad"))
        await one.until(lambda: one.heard, 120)
        mode.write_text("prints")
        one.session.tell(AscendCommand("class:0", quick, 0, 1))
        await one.until(lambda: isinstance(one.heard[-1], ScoreCard))
        mode.write_text("asks for everything")
        one.session.tell(AscendCommand("class:0", quick, 0, 1))
        await one.until(lambda: isinstance(one.heard[-1], CommandFailed))
        mode.write_text("hangs")
        one.session.tell(AscendCommand("class:0", quick, 0, 1))
        await one.until(lambda: one.why)
        return one

    one = asyncio.run(talk())
    kinds = [type(message) for message in one.heard]
    assert kinds[0] is NetworkOpened
    assert ImageFinished in kinds
    (failed,) = [message for message in one.heard if isinstance(message, CommandFailed)]
    assert "memory" in failed.sentence
    assert "\n" not in failed.sentence
    assert one.why == "it gave no sign of life for 2 seconds"
    written = capfd.readouterr()
    assert "xxxx" not in written.out
    assert "yyyy" not in written.err


ORPHAN = """
import time
from phosphene.processes import WorkerProcess

def work(pipe):
    pipe.send("begun")
    while True:
        pass

if __name__ == "__main__":
    worker = WorkerProcess(work)
    worker.pipe.recv()
    print(worker.process.pid, flush=True)
    time.sleep(600)
"""


def test_processes_that_hang_end_with_a_server_that_is_killed(tmp_path):
    (tmp_path / "server.py").write_text(ORPHAN)
    with subprocess.Popen([sys.executable, str(tmp_path / "server.py")], stdout=subprocess.PIPE, text=True) as server:
        worker = psutil.Process(int(server.stdout.readline()))
        server.kill()
        worker.wait(30)
    assert not worker.is_running()


def test_a_turn_that_goes_wrong_is_given_back():
    turns = RunSlots(1)

    def fails():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        turns.ask("a", fails)
    begun = []
    assert turns.ask("b", lambda: begun.append("b"))
    assert begun == ["b"]


def test_the_bounds_are_of_the_machine():
    total = machine_memory()
    assert 0 < total <= psutil.virtual_memory().total
    assert Bounds.of_this_machine().memory == int(0.8 * total)
    assert ending(-11) == "it was ended by SIGSEGV"
    assert ending(-200) == "it was ended by signal 200"
