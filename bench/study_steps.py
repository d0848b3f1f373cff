"""Do the 1000 steps matter, and what does early stopping save at an equal score?

The rate falls over however many steps there are.  Early stopping is by the smoothed objective (`stop.patience`), or by
the network's own probability of the class (`stop.confidence`).
"""

from study import changed, main

VARIANTS = {
    **{f"tence, {steps} steps": changed("tence", steps=steps) for steps in (60, 120, 240, 480, 1000)},
    "tence, 1000, patience 50": changed("tence", steps=1000, stop__patience=50),
    "tence, 1000, confidence 0.99": changed("tence", steps=1000, stop__confidence=0.99),
    **{f"draft, {steps} steps": changed("draft", steps=steps) for steps in (32, 64, 128, 256)},
    "draft, 256, patience 50": changed("draft", steps=256, stop__patience=50),
}

if __name__ == "__main__":
    main("steps", __doc__, VARIANTS, ["squeezenet_v1.1", "efficientnet_lite0"])
