"""What a tab's process may do at worst, as functions that a `Session` begins; see test_sessions.py."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def answers(given, pipe):
    """Does as it is told, and nothing of it: each command is given back."""
    while True:
        pipe.send(pipe.recv())


def hangs(given, pipe):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass


def allocates(given, pipe):
    held = []
    while True:
        held.append(bytearray(2**23))
        held[-1][::4096] = b"x" * len(held[-1][::4096])


def allocates_in_a_child(given, pipe):
    os.setpgid(0, 0)
    child = "x = []\nwhile True: x.append(b'x' * 2**23)"
    subprocess.run([sys.executable, "-c", child])
    time.sleep(600)


def kills_itself(given, pipe):
    os.kill(os.getpid(), signal.SIGKILL)


def exits(given, pipe):
    pipe.send("farewell")
    sys.exit(3)


def leaves_a_child(given, pipe):
    """Ends, and leaves a child that holds its pipe open; `given` is a file for the child's number."""
    os.setpgid(0, 0)
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)
    os._exit(0)


def sends_garbage(given, pipe):
    pipe.send_bytes(b"no message")
    time.sleep(600)


def works_with_a_bad_network(given, pipe):
    """The worker as it is, with a network whose forward pass goes wrong as the file `given.out` says."""
    import torch
    from helpers import Small, opened, seeded

    from phosphene.studio import worker

    class Bad(Small):
        def forward(self, images):
            mode = Path(given.out).read_text() if Path(given.out).is_file() else ""
            if mode == "prints":
                for _ in range(200):
                    os.write(1, b"x" * 65536)
                    os.write(2, b"y" * 65536)
            if mode == "asks for everything":
                torch.empty(2**33)
            if mode == "hangs":
                while True:
                    pass
            return super().forward(images)

    worker.open_allowed_network = lambda asked, folders: opened(seeded(Bad))
    worker.work(given, pipe)
