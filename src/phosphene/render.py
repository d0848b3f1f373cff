"""Pictures on paper: files, grids, plots and animations."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from phosphene.errors import InputError
from phosphene.picture import Picture, Result, to_pil
from phosphene.provenance import png_info
from phosphene.reproduce import Plan, Row

MARGIN = 5  # pixels between images, as in the post's grids
_WAITING = 64  # pictures at most that wait to be written
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)


def make_directory(directory: Path) -> Path:
    """Make a directory, and check that it can be written.

    Raises:
        InputError: it cannot.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise InputError(f"directory {str(directory)!r} cannot be written: {error.strerror}") from error
    return directory


def write_aside(path: Path, write: Callable[[Path], object]) -> Path:
    """Have a file written beside its place, then move it there: it is never half there."""
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(aside)
        os.replace(aside, path)
    except OSError as error:
        raise InputError(f"file {str(path)!r} cannot be written: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)
    return path


def save_picture(picture: Picture, directory: Path) -> Path:
    """Write a picture as `NAME.png`, with its provenance in it."""
    directory = make_directory(directory)
    image = picture.image()
    return write_aside(
        directory / f"{picture.name}.png", lambda path: image.save(path, "PNG", pnginfo=png_info(picture))
    )


@contextmanager
def beside(write: Callable[[Picture], None]) -> Iterator[Callable[[Picture], None]]:
    """What hands pictures on to be written, in order, by a thread of its own: the next images do not wait for files.

    All that were handed on are written when the context ends, however it ends.  What goes wrong with a file is raised
    with a later picture, or at the end.
    """
    waiting: deque[Future[None]] = deque()

    def hand(picture: Picture) -> None:
        while waiting and (waiting[0].done() or len(waiting) >= _WAITING):
            waiting.popleft().result()
        waiting.append(thread.submit(write, picture))

    with ThreadPoolExecutor(1, "writing") as thread:
        yield hand
        while waiting:
            waiting.popleft().result()


def save_result(result: Result, directory: Path) -> list[Path]:
    """Write all pictures and what belongs to them as a whole."""
    return [*(save_picture(picture, directory) for picture in result), *save_summary(result, directory)]


def save_summary(result: Result, directory: Path) -> list[Path]:
    """Write `grid.png`, `objective.png` and `run.json`."""
    directory = make_directory(directory)
    files = []
    if result.pictures:
        image = grid(result.pictures)
        files.append(write_aside(directory / "grid.png", lambda path: image.save(path, "PNG")))
        files.append(write_aside(directory / "objective.png", lambda path: plot(result.pictures, path)))
    text = json.dumps(run_data(result), indent=1, ensure_ascii=False)
    files.append(write_aside(directory / "run.json", lambda path: path.write_text(text, encoding="utf-8")))
    return files


def save_figure(planned: Plan, rows: Sequence[tuple[Row, Result]], directory: Path) -> dict[str, Any]:
    """Write `figure.png`, each row's grid as the post has it, and all settings and numbers as `figure.json`; gives the
    latter."""
    directory = make_directory(directory)
    data = {
        "figure": planned.figure.name,
        "title": planned.figure.title,
        "settings": planned.settings,
        "rows": [{"label": row.label, **run_data(result)} for row, result in rows],
    }
    name = planned.rows[0].network.name
    pictures = [(row.label, result.pictures) for row, result in rows if result.pictures]
    if pictures:
        image = figure(f"{planned.figure.title}: {name}", pictures)
        write_aside(directory / "figure.png", lambda path: image.save(path, "PNG"))
    for row, result in rows:
        if result.pictures:
            file = f"grid_{row.slug}.png" if len(planned.rows) > 1 else "grid.png"
            square = post_grid([picture.image() for picture in result])
            write_aside(directory / file, partial(square.save, format="PNG"))
    text = json.dumps(data, indent=1, ensure_ascii=False)
    write_aside(directory / "figure.json", lambda path: path.write_text(text, encoding="utf-8"))
    return data


_LEFT_OUT = ("recipe", "start", "photograph")


def run_data(result: Result) -> dict[str, Any]:
    """A run as plain data: what `run.json` holds."""
    return {
        "network": repr(result.network),
        "recipe": result.recipe.to_dict(),
        "interrupted": result.interrupted,
        "unmade": result.unmade,
        "pictures": [
            {
                "file": f"{picture.name}.png",
                **{key: value for key, value in picture.provenance().items() if key not in _LEFT_OUT},
                "seconds": round(picture.seconds, 3),
                "objective": [_number(value) for value in picture.objectives],
                "probability": [_number(value) for value in picture.probabilities],
            }
            for picture in result
        ],
    }


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def caption(picture: Picture) -> str:
    """The line under a picture: its unit, and the network's own probability of a class."""
    label = f"{picture.label} ({picture.makers})" if picture.ensemble else picture.label
    if "probability" in picture.scores:
        return f"{label}  {picture.scores['probability']:.1%}"
    return label


def grid(pictures: Sequence[Picture], columns: int | None = None) -> Image.Image:
    """Pictures side by side, with a caption under each."""
    images = [_on_paper(picture.image()) for picture in pictures]
    return tile(images, [caption(picture) for picture in pictures], columns)


def _on_paper(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image.convert("RGB")
    paper = Image.new("RGBA", image.size, PAPER)
    return Image.alpha_composite(paper, image).convert("RGB")


def tile(images: Sequence[Image.Image], captions: Sequence[str], columns: int | None = None) -> Image.Image:
    """Images in a grid on white, `MARGIN` pixels apart, each with its caption under it."""
    if columns is None:
        columns = len(images) if len(images) <= 6 else math.ceil(math.sqrt(1.6 * len(images)))
    lines = math.ceil(len(images) / columns)
    width, height = max(image.width for image in images), max(image.height for image in images)
    size = min(16, max(9, width // 14))
    font = ImageFont.load_default(size)
    text = size + 8 if any(captions) else 0
    paper = Image.new("RGB", (MARGIN + columns * (width + MARGIN), MARGIN + lines * (height + text + MARGIN)), PAPER)
    draw = ImageDraw.Draw(paper)
    for i, (image, words) in enumerate(zip(images, captions, strict=True)):
        left = MARGIN + i % columns * (width + MARGIN)
        top = MARGIN + i // columns * (height + text + MARGIN)
        paper.paste(image, (left, top))
        if words:
            draw.text((left + width / 2, top + height + 2), _fitted(words, font, width), INK, font, anchor="ma")
    return paper


def post_grid(images: Sequence[Image.Image]) -> Image.Image:
    """Images as the post's script puts them together: ⌈√n⌉ columns and rows, row by row, on black, a margin between."""
    side = math.ceil(math.sqrt(len(images)))
    width, height = max(image.width for image in images), max(image.height for image in images)
    paper = Image.new("RGB", (side * (width + MARGIN) - MARGIN, side * (height + MARGIN) - MARGIN))
    for i, image in enumerate(images):
        paper.paste(_on_paper(image), (i % side * (width + MARGIN), i // side * (height + MARGIN)))
    return paper


def sheet(images: Sequence[Image.Image], side: int = 112, most: int = 8) -> Image.Image:
    """The first images in a row, small, without captions."""
    small = [_on_paper(image) for image in images[:most]]
    for image in small:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return tile(small, [""] * len(small), len(small))


SMALLEST_SHOWN = 160  # pixels: images of small receptive fields are enlarged to about this


def figure(title: str, rows: Sequence[tuple[str, Sequence[Picture]]]) -> Image.Image:
    """Rows of pictures, each with its label above it, and a title above all; short rows stand side by side."""
    bands = [(label, _band(pictures)) for label, pictures in rows if pictures]
    font, small = ImageFont.load_default(16), ImageFont.load_default(13)
    width, height = max(band.width for _, band in bands), 22 + max(band.height for _, band in bands)
    shapes = [(columns * width, math.ceil(len(bands) / columns) * height) for columns in range(1, len(bands) + 1)]
    columns = 1 + min(range(len(shapes)), key=lambda i: abs(math.log(shapes[i][0] / shapes[i][1] / 1.2)))
    lines = math.ceil(len(bands) / columns)
    paper = Image.new("RGB", (max(columns * width, round(font.getlength(title)) + 20), 34 + lines * height), PAPER)
    draw = ImageDraw.Draw(paper)
    draw.text((2 * MARGIN, 8), title, INK, font)
    for i, (label, band) in enumerate(bands):
        left, top = i % columns * width, 34 + i // columns * height
        draw.text((left + 2 * MARGIN, top + 4), _fitted(label, small, width - 2 * MARGIN), FAINT, small)
        paper.paste(band, (left, top + 22))
    return paper


def _band(pictures: Sequence[Picture]) -> Image.Image:
    images, captions = [], []
    for picture in pictures:
        image, words = _on_paper(picture.image()), caption(picture)
        factor = SMALLEST_SHOWN // max(image.size)
        if factor > 1:
            image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
        images.append(image)
        captions.append(words)
    return tile(images, captions, columns=min(len(images), 9))


def _fitted(words: str, font: Any, width: int) -> str:
    if font.getlength(words) <= width:
        return words
    while len(words) > 1 and font.getlength(words + "…") > width:
        words = words[:-1]
    return words + "…"


def plot(pictures: Sequence[Picture], path: Path) -> None:
    """The objective over the steps, a line a picture, and of classes the network's probability below it."""
    from matplotlib.figure import Figure

    sure = [picture for picture in pictures if picture.probabilities]
    figure = Figure(figsize=(8, 6 if sure else 4), layout="constrained")
    axes = figure.subplots(2 if sure else 1, 1, sharex=True, squeeze=False)[:, 0]
    for picture in pictures:
        axes[0].plot(range(len(picture.objectives)), picture.objectives, linewidth=1, label=picture.label)
    for picture in sure:
        axes[-1].plot(range(len(picture.probabilities)), picture.probabilities, linewidth=1)
    if sure:
        axes[-1].set(ylabel="network's own probability", ylim=(-0.02, 1.02))
    axes[0].set(ylabel="objective", title=f"{pictures[0].network.name}, recipe {pictures[0].recipe.name}")
    axes[-1].set(xlabel="step")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    if len(pictures) <= 20:
        axes[0].legend(fontsize="small", frameon=False, ncols=1 + len(pictures) // 8)
    figure.savefig(path, dpi=110, format="png")


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
    return write_aside(make_directory(directory) / f"{picture.name}.{kind}", lambda path: write(frames, rate, path))


def _write_gif(frames: list[Any], rate: float, path: Path) -> None:
    # One palette for all, from the last frame, where the colours are fullest; else the colours flicker.
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


FILM_SIDE, FILM_COLUMNS = 128, 4


@dataclass(frozen=True)
class Film:
    """How a picture came about, on one image: small frames in rows of `FILM_COLUMNS`, at last the picture itself.

    A page that is opened from the file system can show any frame of it, and cannot step through an animation.

    Attributes:
        image: of all frames, without transparency.
        frames: how many.
        every: steps between two; from the last but one to the picture there may be fewer.
    """

    image: Image.Image
    frames: int
    every: int


def film(picture: Picture) -> Film | None:
    """The film of a picture; None where its recipe keeps no frames."""
    every = picture.recipe.keep.every
    if not every:
        return None
    # The frame of the last step, where there is one, is the picture before the last touches of its recipe.
    shown = [frame for number, frame in enumerate(picture.frames, 1) if number * every < picture.steps]
    width, height = film_size(picture)
    frames = [*shown, picture.pixels]
    paper = Image.new("RGB", (min(len(frames), FILM_COLUMNS) * width, math.ceil(len(frames) / FILM_COLUMNS) * height))
    for i, frame in enumerate(frames):
        small = to_pil(frame).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        paper.paste(small, (i % FILM_COLUMNS * width, i // FILM_COLUMNS * height))
    return Film(paper, len(frames), every)


def film_size(picture: Picture) -> tuple[int, int]:
    """Width and height of each frame of a film: the picture's, or as much smaller as `FILM_SIDE` asks."""
    width, height = to_pil(picture.pixels).size
    share = min(1.0, FILM_SIDE / max(width, height))
    return max(1, round(width * share)), max(1, round(height * share))


def require_mp4() -> None:
    """Raise an `InputError` if there is nothing to write MP4 with."""
    try:
        import imageio_ffmpeg  # noqa: F401
    except ImportError:
        raise InputError(
            "MP4 needs an encoder: pip install imageio-ffmpeg (or phosphene[video]), or ask for gif"
        ) from None
