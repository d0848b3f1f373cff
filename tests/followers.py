"""What processes of the tests do; imports nothing slow."""

import os
import signal
import time
from pathlib import Path

from phosphene.interruption import interruptible

# Signals that are held back while this is imported.
HELD = {each.name for each in signal.pthread_sigmask(signal.SIG_BLOCK, [])}
if os.environ.get("SLOW_TO_IMPORT"):
    time.sleep(600)


def work(folder, name, pipe):
    """Wait to be told to end; a stubborn one goes on then."""
    aside = Path(folder, f".{name}")
    try:
        aside.write_text("half")
        Path(folder, f"{name}.following").write_text(" ".join(sorted(HELD)))
        with interruptible() as stop:
            while not stop.is_set():
                time.sleep(0.01)
        Path(folder, f"{name}.told").touch()
        time.sleep(600 if name == "stubborn" else 0)
    except KeyboardInterrupt:
        Path(folder, f"{name}.ended").touch()
        raise
    finally:
        os.unlink(aside)


def echo(pipe):
    """Say what is said to it."""
    while True:
        pipe.send(pipe.recv())
