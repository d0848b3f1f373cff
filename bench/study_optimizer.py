"""Classic ascent or Adam, a constant rate or one that falls?

On pixels under the post's method, with the gradient brought to a root mean square of 1 so that one rate means the same
on every network; and on the Fourier canvas of `draft`.
"""

from study import changed, main

PIXELS = {"optimizer__gradient": "rms", "steps": 240}
VARIANTS = {
    "pixels: classic, constant": changed("tence", **PIXELS, optimizer__rate=24.0, schedule__kind="constant"),
    "pixels: classic, falling": changed("tence", **PIXELS, optimizer__rate=24.0, schedule__kind="cosine"),
    "pixels: Adam, constant": changed(
        "tence", **PIXELS, optimizer__name="adam", optimizer__rate=10.0, schedule__kind="constant"
    ),
    "pixels: Adam, falling": changed(
        "tence", **PIXELS, optimizer__name="adam", optimizer__rate=10.0, schedule__kind="cosine"
    ),
    "Fourier: classic, constant": changed("draft", schedule__kind="constant"),
    "Fourier: classic, falling": changed("draft"),
    "Fourier: momentum, falling": changed("draft", optimizer__name="momentum", optimizer__rate=0.01),
    "Fourier: Adam, falling": changed("draft", optimizer__name="adam", optimizer__gradient="raw", optimizer__rate=0.08),
}

if __name__ == "__main__":
    main("optimizer", __doc__, VARIANTS, ["squeezenet_v1.1", "efficientnet_lite0"])
