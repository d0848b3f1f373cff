"""Defaults that functions take and the command line names, with nothing to import."""

from __future__ import annotations

NETWORK = "efficientnet_lite0"

SEED = 1337

FRAMES = 8
"""Frames of each ascent that an atlas keeps beside its image."""

LEASE = 120.0
"""Seconds without a sign of life after which another run of an atlas takes over what one has begun."""

PHOTOGRAPHS = 500
"""Photographs at most that statistics are measured on."""

STUDIO_PORT = 8765
