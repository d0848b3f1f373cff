"""Keras itself, run by torch."""

from __future__ import annotations

import os
import sys
from typing import Any

from phosphene.errors import InputError
from phosphene.extras import require


def import_keras() -> Any:
    """Keras on its torch backend.

    Raises:
        InputError: it is not installed, too old, or was imported with another backend; the text says what to do.
    """
    fix = "set KERAS_BACKEND=torch in the environment before Python starts"
    if "keras" not in sys.modules:
        backend = os.environ.setdefault("KERAS_BACKEND", "torch")
        if backend != "torch":
            raise InputError(f"KERAS_BACKEND is {backend!r}, and Keras's networks are run by torch here: {fix}")
    keras: Any = require("keras", "keras", "a network of Keras")
    require("h5py", "keras", "a network of Keras")
    if int(keras.__version__.partition(".")[0]) < 3:
        raise InputError(
            f'Keras {keras.__version__} cannot run on torch: pip install "phosphene[keras]" brings Keras 3'
        )
    if keras.config.backend() != "torch":
        raise InputError(
            f"Keras was imported with its {keras.config.backend()} backend, and its networks are run by torch here: "
            f"{fix}, or open the network before anything else imports keras"
        )
    return keras
