"""What processes of the tests do; imports nothing slow."""

import os
import signal
import time
from pathlib import Path

from phosphene import interruption


def work(folder, name):
    """Note the signals held back since before this process's first line, then wait to be told to end."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    Path(folder, f"{name}.begun").write_text(" ".join(each.name for each in sorted(held)))
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    stop = interruption.follow()
    aside = Path(folder, f".{name}")
    try:
        aside.write_text("half")
        Path(folder, f"{name}.following").touch()
        while not stop.is_set():
            time.sleep(0.01)
        Path(folder, f"{name}.told").touch()
        time.sleep(600 if name == "stubborn" else 0)
    except KeyboardInterrupt:
        Path(folder, f"{name}.ended").touch()
    finally:
        os.unlink(aside)
