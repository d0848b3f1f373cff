"""Which image should be kept: the last one clipped, the last one, that of the highest objective, or the best judged?

The post asks it of its own method, so it is asked of `tence` here.  The best judged is, of each class's images from
three seeds, the one that EfficientNet-lite1 and -lite2 give the highest probability; others score it.
"""

from functools import partial

from study import Study, changed, opened, parser

import phosphene

RULES = {
    "last, clipped": changed("tence", keep__rule="clipped"),
    "last": changed("tence", keep__rule="last"),
    "highest objective": changed("tence", keep__rule="best"),
}
CHOOSERS = ["efficientnet_lite1", "efficientnet_lite2"]

if __name__ == "__main__":
    args = parser(__doc__, ["squeezenet_v1.1", "efficientnet_lite0"]).parse_args()
    study = Study("keep", args)
    for network in map(opened, args.networks):
        study.run(network, {label: make(network) for label, make in RULES.items()})
        recipe = RULES["last, clipped"](network)
        best = partial(phosphene.best_of, network, recipe=recipe, count=3, selectors=CHOOSERS, seed=args.seed)
        study.add(network, "best judged of 3", recipe, best)
    study.report()
