"""Photographs shown to a network under several preprocessings, until the worse ones are given up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene.default_progress import Tally
from phosphene.doctor.outputs import ELIMINATION, Outputs, difference
from phosphene.doctor.photographs import LabeledPhotographs, read_photographs
from phosphene.doctor.preprocessings import resize_rule, resize_rules
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing

ROUND = 32
"""How many photographs are shown before the candidates are compared again."""


@dataclass(frozen=True)
class TestSet:
    """The photographs, in the order in which they are shown: their pixels under each resize rule, and labels."""

    pixels: dict[str, Tensor]
    labels: Tensor
    unreadable: int


def load_test_set(photographs: LabeledPhotographs, declared: Preprocessing) -> TestSet:
    rules = resize_rules(declared)
    images, readable = read_photographs(photographs, rules.values())
    # Shuffled, so that the first of them are of all kinds.
    order = torch.randperm(len(readable), generator=torch.Generator().manual_seed(0))
    pixels = {rule: tensor[order] for rule, tensor in zip(rules, images, strict=True)}
    return TestSet(pixels, torch.tensor(readable.labels)[order], len(photographs) - len(readable))


@dataclass(frozen=True)
class Comparison:
    """Shows photographs to a network under several preprocessings."""

    network: Network
    test_set: TestSet
    device: torch.device | str
    tally: Tally

    def run(
        self, tried: dict[str, Preprocessing], keep: str, known: dict[str, Outputs] | None = None
    ) -> dict[str, Outputs]:
        """What the network says under each; one clearly worse than the best so far is shown no more, except `keep`."""
        outputs = dict(known or {})
        new = [name for name in tried if name not in outputs]
        running, total = list(tried), len(self.test_set.labels)
        self.tally.expect(total)
        for start in range(0, total, ROUND):
            rows = slice(start, min(start + ROUND, total))
            asked = [name for name in running if name in new]
            self.tally.say(f"under {len(asked)} preprocessings")
            for name in asked:
                more = self.ask(tried[name], rows)
                outputs[name] = outputs[name].and_then(more) if name in outputs else more
            so_far = {name: outputs[name].first(rows.stop) for name in running}
            best = max(so_far.values(), key=lambda each: each.rank)
            running = [name for name in running if name == keep or difference(best, so_far[name]) >= ELIMINATION]
            self.tally.add(rows.stop - start)
        return {name: outputs[name] for name in tried}

    def ask(self, preprocessing: Preprocessing, rows: slice) -> Outputs:
        network = self.network.replace(preprocessing=preprocessing)
        pixels, true = self.test_set.pixels[resize_rule(preprocessing)][rows], self.test_set.labels[rows]
        size = 8 if torch.device(self.device).type == "cpu" else ROUND  # few at a time stay in a CPU's cache
        with network.borrowed(self.device), torch.no_grad():
            batches = [pixels[i : i + size].to(self.device).float() for i in range(0, len(pixels), size)]
            probabilities = torch.cat(
                [network.probabilities(network.forward(batch).double()).cpu() for batch in batches]
            )
        known = true.clamp_max(probabilities.shape[1] - 1)  # there may be more labels than outputs
        probability = probabilities.gather(1, known[:, None])[:, 0].nan_to_num()
        return Outputs(network.classes, true, probabilities.argmax(1), probability)
