"""Docstrings, as this project writes them, for autodoc."""

import re
from typing import Any

from pydantic import BaseModel
from sphinx.application import Sphinx

BEFORE_NAPOLEON, AFTER_NAPOLEON = 400, 600


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", escape, priority=BEFORE_NAPOLEON)
    app.connect("autodoc-process-docstring", list_fields, priority=AFTER_NAPOLEON)
    app.connect("autodoc-process-signature", leave_fields_to_the_list)
    app.connect("autodoc-skip-member", skip_inner_names)
    return {"parallel_read_safe": True}


def escape(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Only backticks and `*words*` are markup: bars and single asterisks, as in formulas and shapes, are themselves."""
    for index, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[index] = escaped(line)


def escaped(line: str) -> str:
    parts = re.split(r"(`[^`]*`|(?<![\w*])\*[A-Za-z][A-Za-z ]*\*(?![\w*]))", line)
    parts[::2] = [re.sub(r"([*|])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def list_fields(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Behind the docstring of a settings class, its fields, as they describe themselves."""
    if not is_settings(value):
        return
    lines.append("")
    for field, about in value.model_fields.items():
        value = about.get_default(call_default_factory=True)
        spelled = f"{type(value).__name__}()" if isinstance(value, BaseModel) else repr(value)
        default = "" if about.is_required() else f" (``{spelled}``)"
        lines.append(f"* **{field}**{default}{': ' * bool(about.description)}{escaped(about.description or '')}")
    lines.append("")


def leave_fields_to_the_list(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str, None] | None:
    return ("", None) if is_settings(value) else None


def skip_inner_names(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """pydantic's own; and None: autodoc decides."""
    return True if name.startswith("model_") else None


def is_settings(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
