"""The text tower of a network of images and texts: it makes vectors of texts, each of them once.

A prompt is a template with a text in it.  The vector of a text is the mean over its templates of the prompts'
embeddings, each of length 1, brought to length 1 again (Radford et al. 2021, "Learning Transferable Visual Models From
Natural Language Supervision", section 3.1.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from phosphene.errors import InputError, printable
from phosphene.networks.borrowing import borrowed

TEMPLATES = ("a photo of {}", "a picture of {}", "a close view of {}", "a sharp photo of {}", "{}")
"""What a text is put into where no template is given."""

LARGEST_TEXT = 1000  # characters of a text, and of a template
MOST_TEMPLATES = 100
_BATCH = 64  # prompts at once


@dataclass(frozen=True, eq=False)
class TextTower:
    """A text tower that is loaded.

    Attributes:
        module: its weights.
        count: how many tokens a prompt has, with those that begin and end it.
        limit: how many it takes.
        embed: makes embeddings (prompts, channels) of prompts, on the module's device; one does not depend on another.
    """

    module: nn.Module
    count: Callable[[str], int]
    limit: int
    embed: Callable[[Sequence[str]], Tensor]


class TextEncoder:
    """What makes vectors of texts, in the space of a network's embeddings of images.

    Args:
        name: the network's, for messages.
        load: loads the text tower, when it is first needed.
    """

    def __init__(self, name: str, load: Callable[[], TextTower]):
        self.name, self.load = name, load
        self._tower: TextTower | None = None
        self._known: dict[tuple[str, tuple[str, ...]], tuple[float, ...]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which loads the tower itself if it needs it."""
        return {"name": self.name, "load": self.load, "_tower": None, "_known": self._known}

    @property
    def tower(self) -> TextTower:
        if self._tower is None:
            self._tower = self.load()
        return self._tower

    def vector(self, text: str, templates: Sequence[str] = TEMPLATES) -> tuple[float, ...]:
        """The vector of a text, of length 1: the same numbers whatever else is encoded, and by however many threads.

        Raises:
            InputError: the text, within one of its templates, is too long for the tower.
        """
        key = (text, tuple(templates))
        if key not in self._known:
            with _one_thread():
                self._known[key] = tuple(self.vectors([text], templates)[0].tolist())
        return self._known[key]

    def vectors(
        self,
        texts: Sequence[str],
        templates: Sequence[str] = TEMPLATES,
        device: torch.device | str = "cpu",
        on_texts: Callable[[int], object] | None = None,
    ) -> Tensor:
        """The vectors of texts, (texts, channels), each of length 1; on the CPU.

        Args:
            device: where they are computed.
            on_texts: told how many more are encoded.

        Raises:
            InputError: a text, within one of its templates, is too long for the tower.
        """
        prompts = [[template.replace("{}", text) for template in templates] for text in texts]
        for text, own in zip(texts, prompts, strict=True):
            self._check_length(text, own)
        step = max(1, _BATCH // max(1, len(templates)))
        found = []
        with borrowed(self.tower.module, device), torch.no_grad():
            for first in range(0, len(prompts), step):
                part = prompts[first : first + step]
                embedded = self.tower.embed([prompt for own in part for prompt in own]).float().cpu()
                each = nn.functional.normalize(embedded, dim=-1).view(len(part), len(templates), -1)
                found.append(nn.functional.normalize(each.mean(dim=1), dim=-1))
                if on_texts is not None:
                    on_texts(len(part))
        return torch.cat(found) if found else torch.zeros(0, 0)

    def _check_length(self, text: str, prompts: Sequence[str]) -> None:
        most = max(map(self.tower.count, prompts))
        if most > self.tower.limit:
            raise InputError(
                f"text {printable(text, 80)!r} has {most} tokens with its template, and the text tower of {self.name} "
                f"takes {self.tower.limit}: expected a shorter one"
            )


def check_text(text: Any, templates: Sequence[Any]) -> tuple[str, tuple[str, ...]]:
    """A text and its templates, if a text tower may be given them.

    Raises:
        InputError: the text is empty or too long, or a template has no place for it, or several.
    """
    given = (templates,) if isinstance(templates, str) else tuple(templates)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"text {text!r}: expected words, such as 'a red fox'")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(f"text {printable(text, 80)!r} has half a letter (a surrogate): expected whole ones")
    if len(text) > LARGEST_TEXT:
        raise InputError(f"a text of {len(text)} characters: expected at most {LARGEST_TEXT}")
    if not 1 <= len(given) <= MOST_TEMPLATES:
        raise InputError(f"{len(given)} templates of a text: expected 1 to {MOST_TEMPLATES}")
    for template in given:
        if not isinstance(template, str) or template.count("{}") != 1 or len(template) > LARGEST_TEXT:
            raise InputError(
                f"template {printable(template, 80)!r}: expected words with one {{}} where the text goes, such as "
                f"{TEMPLATES[0]!r}"
            )
    return text.strip(), given


@contextmanager
def _one_thread() -> Iterator[None]:
    """How sums are grouped, and so their last bits, depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
