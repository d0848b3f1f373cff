"""Median or blur, how strong, how often, and on which networks?

On the post's method, all else as in `tence`.
"""

from study import changed, main


def plain(**fields):
    return changed("tence", median="off", **fields)


VARIANTS = {
    "neither": plain(),
    "decay 0.001": plain(decay__strength=0.001),
    "blur 0.5, every 4": plain(blur__sigma=0.5),
    "blur 1, every 4": plain(blur__sigma=1.0),
    "median 3, every 4": changed("tence", median__size=3),
    "median 5, every 4": changed("tence"),
    "median 5, every 12": changed("tence", median__every=12),
    "median 5 and blur 0.5": changed("tence", blur__sigma=0.5),
}

if __name__ == "__main__":
    main("filters", __doc__, VARIANTS, ["squeezenet_v1.1", "efficientnet_lite0"])
