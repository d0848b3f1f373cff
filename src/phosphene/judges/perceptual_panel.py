"""Who judges pictures of a network's hidden units, where it is known before they are read."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from phosphene.errors import InputError
from phosphene.judges.image_reader import ImageReader
from phosphene.judges.independence import dependence
from phosphene.judges.judged_image import SourceModel
from phosphene.judges.metrics import is_metric, open_metric
from phosphene.judges.panel import open_judges
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
    source = SourceModel(network.name, network.digest, network)
    if judges is None:
        bundled = ImageReader(None, None).judges
        unrelated = [judge for judge in bundled if not dependence(judge, judge.digest, source)]
        if not unrelated:
            raise InputError("no judge is here: expected one to be named, or pip install phosphene[networks]")
        return [of_network(judge) for judge in unrelated if judge.name not in tuned_on] or list(
            map(of_network, unrelated)
        )
    metrics = [each for each in judges if isinstance(each, str) and is_metric(each)]
    found = [
        *map(of_network, open_judges([each for each in judges if each not in metrics])),
        *map(open_metric, metrics),
    ]
    for judge in found:
        if relation := dependence(judge.network, judge.network.digest, source):
            raise InputError(f"judge {judge.name} {relation}, which is to be shown: expected another network")
    return found
