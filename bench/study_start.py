"""Does the start matter?

Noise about the mean image, weak to strong, uniform noise, grey, for the post's method and for `draft`.  How far the
images of two starts differ is in the pictures: the seed is the same.
"""

from study import changed, main

VARIANTS = {
    "tence, grey": changed("tence", start__kind="grey"),
    "tence, noise 1": changed("tence", start__sigma=1.0),
    "tence, noise 10": changed("tence"),
    "tence, noise 40": changed("tence", start__sigma=40.0),
    "tence, uniform": changed("tence", start__kind="uniform"),
    "draft, grey": changed("draft", start__kind="grey"),
    "draft, noise 1": changed("draft"),
    "draft, noise 10": changed("draft", start__sigma=10.0),
    "draft, noise 40": changed("draft", start__sigma=40.0),
}

if __name__ == "__main__":
    main("start", __doc__, VARIANTS, ["squeezenet_v1.1", "efficientnet_lite0"])
