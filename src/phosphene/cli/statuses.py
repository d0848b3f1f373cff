"""Exit statuses."""

INPUT_ERROR = 2
INTERRUPTED = 130
