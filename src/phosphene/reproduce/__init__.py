"""The figures of the post."""
