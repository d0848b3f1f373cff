"""`atlas` and its verbs."""
