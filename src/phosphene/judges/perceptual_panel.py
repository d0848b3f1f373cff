"""Who judges pictures of a network's hidden units, where it is known before they are read."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from phosphene.judges.metrics import is_metric, open_metric
from phosphene.judges.panel import check_unrelated, open_judges, unrelated_bundled
from phosphene.judges.perception import PerceptualJudge, of_network
from phosphene.networks.network import Network


def perceptual_panel(
    network: Network, judges: Sequence[str | Network] | None = None, tuned_on: Collection[str] = ()
) -> list[PerceptualJudge]:
    """The judges that `phosphene judge` would ask about pictures of a network's hidden units.

    Args:
        judges: networks, or names as `open_judge` and `open_metric` take them; by default those of the bundled networks
            that are not related to it, and of these those that its recipes were not tuned on, if there are any.
        tuned_on: names of networks whose judgment a search maximized to find a recipe.

    Raises:
        InputError: a judge is related to the network, or cannot judge; or there is none.
    """
    if judges is None:
        unrelated = unrelated_bundled(network)
        return list(map(of_network, [judge for judge in unrelated if judge.name not in tuned_on] or unrelated))
    metrics = [each for each in judges if isinstance(each, str) and is_metric(each)]
    networks = open_judges([each for each in judges if each not in metrics])
    found = [*map(of_network, networks), *map(open_metric, metrics)]
    for judge in found:
        check_unrelated(judge.network, network)
    return found
