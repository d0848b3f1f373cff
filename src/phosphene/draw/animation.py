"""Animations of how a picture came about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from phosphene.errors import InputError
from phosphene.files import atomic_write, make_directory
from phosphene.picture import Picture
from phosphene.planes import to_pil

ANIMATIONS = ("gif", "mp4")


def save_animation(picture: Picture, directory: Path, kind: str = "gif", seconds: float = 8.0) -> Path:
    """Write a picture's frames, and the picture itself at the end, as an animation of about so many seconds.

    Raises:
        InputError: the picture has no frames, the kind is none, or MP4 is asked for without its encoder.
    """
    if kind not in ANIMATIONS:
        raise InputError(f"animation {kind!r}: expected {' or '.join(ANIMATIONS)}")
    if not picture.frames:
        raise InputError(f"{picture.name} has no frames: expected a recipe with keep.every of at least 1")
    frames = [np.asarray(to_pil(frame).convert("RGB")) for frame in [*picture.frames, picture.pixels]]
    rate = min(30.0, max(5.0, len(frames) / seconds))
    write = _write_gif if kind == "gif" else _write_mp4
    return atomic_write(make_directory(directory) / f"{picture.name}.{kind}", lambda path: write(frames, rate, path))


def _write_gif(frames: list[Any], rate: float, path: Path) -> None:
    # One palette for all, from the last frame, where the colors are fullest; else the colors flicker.
    palette = Image.fromarray(frames[-1]).quantize(256)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [round(1000 / rate)] * (len(images) - 1) + [1500]
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=False)


def _write_mp4(frames: list[Any], rate: float, path: Path) -> None:
    require_mp4()
    import imageio_ffmpeg

    height, width = frames[0].shape[:2]
    # H.264 at 4:2:0 takes even sides only: an odd one is repeated by its last line.
    even = ((0, height % 2), (0, width % 2), (0, 0))
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width + width % 2, height + height % 2),
        fps=rate,
        quality=8,
        macro_block_size=2,
        ffmpeg_log_level="error",
    )
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(np.pad(frame, even, mode="edge")))
    writer.close()


def require_mp4() -> None:
    """Raise an `InputError` if there is nothing to write MP4 with."""
    try:
        import imageio_ffmpeg  # noqa: F401
    except ImportError:
        raise InputError(
            "MP4 needs an encoder: pip install imageio-ffmpeg (or phosphene[video]), or ask for gif"
        ) from None
