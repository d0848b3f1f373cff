"""A call of the library leaves the process as it was, and an import takes no name of Python's."""

import builtins
import gc
import locale
import logging
import os
import random
import signal
import socket
import sys
import threading
import warnings

import captum.attr  # noqa: F401
import cv2
import matplotlib
import numpy as np
import optuna
import pytest
import timm  # noqa: F401 (it imports the hub, which sets its logger's level)
import torch
import torch._inductor.utils  # (a step of an optimizer imports it, and it sets a variable of the environment)
from PIL import Image, ImageFile

import phosphene
from phosphene import hardware
from phosphene.interruption import SIGNALS


def of_torch():
    backends = torch.backends
    return {
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.get_deterministic_debug_mode()),
        "cudnn": [getattr(backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic", "allow_tf32")],
        "products": (torch.get_float32_matmul_precision(), backends.cuda.matmul.allow_tf32),
        "quantized": backends.quantized.engine,
        "mkldnn": (backends.mkldnn.enabled, backends.mkldnn.deterministic),
        "generator": torch.get_rng_state().tolist(),
        "checkpoint": torch.utils.checkpoint.CheckpointFunction,
    }


def of_python():
    loggers = [logging.root, *(logging.getLogger(name) for name in ("phosphene", "PIL", "huggingface_hub", "timm"))]
    return {
        "signals": [signal.getsignal(number) for number in SIGNALS],
        "masked": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "loggers": [(each.level, each.disabled, list(each.handlers), each.propagate) for each in loggers],
        "logging": logging.root.manager.disable,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "streams": (sys.stdout, sys.stderr, sys.stdin),
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
        "generator": random.getstate(),
        "locale": locale.setlocale(locale.LC_ALL),
        "garbage": (gc.isenabled(), gc.get_threshold()),
        "timeout": socket.getdefaulttimeout(),
        "recursion": sys.getrecursionlimit(),
        "threads": {thread.name for thread in threading.enumerate() if not thread.daemon},
    }


def of_libraries():
    return {
        "numpy": (np.geterr(), np.get_printoptions(), str(np.random.get_state())),  # noqa: NPY002
        "matplotlib": dict(dict.items(matplotlib.rcParams)),  # a look at its backend itself would choose one
        "optuna": optuna.logging.get_verbosity(),
        "pillow": (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES),
        "opencv": (cv2.getNumThreads(), cv2.useOptimized()),
    }


def state():
    found = {"torch": of_torch(), "python": of_python(), "libraries": of_libraries()}
    return {f"{library}'s {name}": value for library, values in found.items() for name, value in values.items()}


RECIPE = phosphene.Recipe.load("natural").override({"steps": 2})


def ascend(small, folder):
    phosphene.ascend(small, ["class:cat", "relu2:3"], RECIPE).save(folder)


def judge(small, folder):
    phosphene.ascend(small, "class:cat", RECIPE).judge([])


def again(small, folder):
    image = phosphene.ascend(small, "class:cat", RECIPE)[0].save(folder)
    assert phosphene.again(image, small).same


def explain(small, folder):
    settings = phosphene.AttributionSettings(samples=2, steps=4)
    phosphene.explain(small, torch.full((3, 24, 24), 99.0), methods="all", check=True, settings=settings)


@pytest.mark.parametrize("call", [ascend, judge, again, explain])
def test_a_call_changes_nothing_that_the_process_shares(call, small, tmp_path):
    hardware.keep_freed_memory.cache_clear()
    before = state()
    call(small, tmp_path)
    after = state()
    assert [name for name in before if after[name] != before[name]] == []
    assert hardware.keep_freed_memory.cache_info().misses == 0, "it cannot be put back"


def test_what_is_imported_by_a_star_hides_no_name_of_pythons():
    names: dict[str, object] = {}
    exec("from phosphene import *", names)
    assert set(names) & set(dir(builtins)) <= {"__builtins__", "__doc__"}
    assert {"ascend", "judge", "Recipe"} <= set(names)
    assert phosphene.open is not open
    assert phosphene.show.__name__ == "read_provenance"
    assert {"open", "show", "__version__"} <= set(dir(phosphene))
