"""Exit statuses."""

from __future__ import annotations

NOT_WRITTEN = 1
INPUT_ERROR = 2
INTERRUPTED = 130
