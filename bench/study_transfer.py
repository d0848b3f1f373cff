"""Do images transfer between networks, and which networks are hard to visualise?

Images of each network by `draft` and by the post's method, scored by every other one.
"""

from study import changed, main

NETWORKS = ["squeezenet_v1.1", "mobilenet_v1", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]

if __name__ == "__main__":
    main("transfer", __doc__, {"tence": changed("tence"), "draft": changed("draft")}, NETWORKS)
