"""A request, carried out where its options say."""

from __future__ import annotations

from dataclasses import replace

from phosphene.ascent.request import Request
from phosphene.devices.callbacks import Callbacks
from phosphene.devices.one import ascend_on_one
from phosphene.devices.several import ascend_on_several
from phosphene.errors import InputError
from phosphene.result import Result


def run(request: Request, callbacks: Callbacks | None = None) -> Result:
    """The pictures of a request; of several devices each has a process of its own.

    Raises:
        InputError: steps are to be followed on several devices, or of several facets.
    """
    callbacks = callbacks or Callbacks()
    if callbacks.step is not None and len(request.devices) > 1:
        raise InputError(f"callbacks.step is called on one device, and {len(request.devices)} are given: expected one")
    if callbacks.step is not None and request.facets > 1:
        raise InputError(
            f"callbacks.step may end one image alone, and {request.facets} facets are made together: expected one"
        )
    devices = request.devices[: len(request.units)]
    if len(devices) > 1:
        return ascend_on_several(replace(request, devices=devices), callbacks)
    return ascend_on_one(request, callbacks)
