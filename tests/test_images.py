"""Image files from elsewhere: what is opened, how it is shown, and what it costs."""

import base64
import io
import os
import re
import struct
import subprocess
import threading
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

import phosphene
from phosphene import InputError, Preprocessing, images
from phosphene.ascent.canvas import as_pixels
from phosphene.display import opaque, to_display
from phosphene.image_formats import formats
from phosphene.images import open_image, read_image
from phosphene.judges.photo_set import PhotoSet
from phosphene.photographs import image_statistics, listing
from phosphene.provenance.pixels import decode_pixels, encode_pixels
from phosphene.provenance.reading import load

CASES = Path(__file__).parents[2] / "shared" / "cases" / "files"


def written(image: Image.Image, kind: str = "PNG", **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def random_pixels(*shape: int, high: int = 256, kind: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape).astype(kind)


def smooth() -> Image.Image:
    """Of 30 x 20 pixels, with no symmetry, and smooth, so that lossy formats keep it."""
    y, x = np.mgrid[:20, :30]
    return Image.fromarray(np.stack([8 * x, 12 * y, 4 * (x + y)], -1).astype(np.uint8))


def sentence(call) -> str | None:
    """What an `InputError` says that a call raises, or None where it raises nothing."""
    try:
        call()
    except InputError as error:
        return str(error)
    return None


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, data: bytes = b"", before: bytes = b"") -> bytes:
    """A PNG of one bit a pixel."""
    header = struct.pack(">2I5B", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def black_png(width: int, height: int) -> bytes:
    return png_of(width, height, zlib.compress(bytes((width + 7) // 8 + 1) * height))


# What is opened


def test_all_image_files_are_opened_in_one_place():
    source = Path(phosphene.__file__).parent
    reads = re.compile(r"Image\.open\(|\bimread\(|read_image_file|np\.load\(")
    found = {path.name for path in source.rglob("*.py") if reads.search(path.read_text(encoding="utf-8"))}
    assert found == {"images.py", "vectors.py"}  # the latter's are a direction's numbers


@pytest.mark.parametrize("kind", formats())
def test_each_format_is_opened_by_its_content_whatever_the_file_is_called(kind, tmp_path):
    file = tmp_path / "image.eps"
    file.write_bytes(written(smooth(), kind))
    assert read_image(file).size == (30, 20)
    assert read_image(file.read_bytes()).tobytes() == read_image(str(file)).tobytes()


FOREIGN = {
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n{} loop\n",
    "PDF": b"%PDF-1.7\n",
    "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "HEIC": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic",
    "a web page": b"\n<!DOCTYPE html><html>not found</html>",
    "Netpbm": b"P6\n1 1\n255\nabc",
    "a zip archive": b"PK\x03\x04",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\n",
    "no image file": b"hello",
    "empty": b"",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_another_format_is_named_and_never_handed_to_a_program(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    file = tmp_path / "image.png"
    file.write_bytes(FOREIGN[kind])
    with pytest.raises(InputError, match=rf"image\.png'.*it is {kind}.*expected PNG, JPEG, WebP, GIF, BMP.*TIFF"):
        as_pixels(file, Preprocessing(8))


@pytest.mark.parametrize("place", ["pipe", "folder", "device", "link to a device", "nothing"])
def test_what_is_no_regular_file_is_refused_at_once(place, tmp_path):
    path = tmp_path / place
    if place == "pipe":
        os.mkfifo(path)
    elif place == "folder":
        path.mkdir()
    elif place == "device":
        path = Path("/dev/zero")
    elif place == "link to a device":
        path.symlink_to("/dev/zero")
    start = time.monotonic()
    with pytest.raises(InputError, match=r"no image file|no such file"):
        read_image(path)
    assert time.monotonic() - start < 1


def test_a_folder_lists_only_what_is_opened(tmp_path):
    for name in ("a.png", "b.JPG", "c.eps", "d.pdf", "e.mpg", "f.tiff"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in listing.list_photographs(tmp_path)] == ["a.png", "b.JPG", "f.tiff"]


# As a viewer shows it


def of_mode(mode: str) -> Image.Image:
    return smooth().convert(mode)


SHOWN = {
    "bits": ("PNG", of_mode("1"), "L", of_mode("1").convert("L").tobytes()),
    "grey": ("PNG", of_mode("L"), "L", of_mode("L").tobytes()),
    "palette": ("PNG", of_mode("P"), "RGB", of_mode("P").convert("RGB").tobytes()),
    "YCbCr": ("TIFF", of_mode("YCbCr"), "RGB", of_mode("YCbCr").convert("RGB").tobytes()),
    "CMYK": ("TIFF", of_mode("CMYK"), "RGB", smooth().tobytes()),
}


@pytest.mark.parametrize("name", SHOWN)
def test_each_mode_is_shown_in_its_colors(name):
    kind, image, mode, wanted = SHOWN[name]
    shown = read_image(written(image, kind))
    assert shown.mode == mode
    assert np.abs(np.frombuffer(shown.tobytes(), np.uint8).astype(int) - np.frombuffer(wanted, np.uint8)).max() <= 1


def test_ink_makes_a_cmyk_jpeg_darker():
    shades = [Image.new("CMYK", (8, 8), ink) for ink in [(0,) * 4, (0, 255, 255, 0), (0, 0, 0, 255)]]
    white, red, black = (np.asarray(read_image(written(shade, "JPEG", quality=95)))[4, 4] for shade in shades)
    assert white.min() > 250
    assert red[0] > 250
    assert red[1:].max() < 5
    assert black.max() < 5


def test_lab_is_shown_in_the_colors_it_names():
    lab = Image.merge("LAB", [Image.new("L", (4, 4), value) for value in (136, 208, 195)])  # red: 53, 80, 67
    pixel = np.asarray(read_image(written(lab, "TIFF")))[0, 0].astype(int)
    assert np.abs(pixel - (255, 0, 0)).max() <= 16


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    values = random_pixels(9, 7, high=65536, kind=np.uint16)
    shown = np.asarray(read_image(written(Image.fromarray(values), kind)))
    assert shown.dtype == np.uint8
    assert np.abs(shown - values / 257).max() <= 0.5


@pytest.mark.parametrize(
    ("kind", "values", "wanted"),
    [
        (np.float32, [0, 0.5, 1], [0, 128, 255]),
        (np.float32, [0, 100.4, 255], [0, 100, 255]),
        (np.float32, [-1, 0, 1], [0, 128, 255]),
        (np.float32, [np.nan, np.inf, 5, 1005], [0, 255, 0, 255]),
        (np.float32, [-3e38, 0, 3e38], [0, 128, 255]),
        (np.float32, [7e5, 7e5, 7e5], [0, 0, 0]),
        (np.float32, [np.nan, np.nan], [0, 0]),
        (np.int32, [0, 100, 255], [0, 100, 255]),
        (np.int32, [0, 257, 65535], [0, 1, 255]),
        (np.int32, [-(2**31), 0, 2**31 - 1], [0, 128, 255]),
    ],
)
def test_what_has_no_range_of_its_own_is_shown_from_black_to_white(kind, values, wanted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = read_image(written(Image.fromarray(np.array([values], kind)), "TIFF"))
    assert np.asarray(shown)[0].tolist() == wanted


def transparent(kind: str) -> bytes:
    """Three pixels: black, black that is transparent, and red or grey that is."""
    if kind in ("RGBA", "LA"):
        rgba = np.array([[[0, 0, 0, 255], [0, 0, 0, 0], [255, 0, 0, 0]]], np.uint8)
        return written(Image.fromarray(rgba).convert(kind))
    if kind in ("RGB", "L"):
        pixels = np.array([[[0, 0, 0], [9, 9, 9], [9, 9, 9]]], np.uint8)
        return written(Image.fromarray(pixels).convert(kind), transparency=(9, 9, 9) if kind == "RGB" else 9)
    if kind == "16 bits":
        plain = written(Image.fromarray(np.array([[0, 999, 999]], np.uint16)))
        return plain[:33] + chunk(b"tRNS", struct.pack(">H", 999)) + plain[33:]
    image = Image.fromarray(np.array([[0, 1, 1]], np.uint8), "P")
    image.putpalette([0, 0, 0, 255, 0, 0])
    return written(image, "GIF" if kind == "GIF" else "PNG", transparency=1 if kind == "GIF" else b"\xff\x00")


@pytest.mark.parametrize("kind", ["RGBA", "LA", "RGB", "L", "16 bits", "palette", "GIF"])
def test_what_is_transparent_is_white(kind):
    shown = np.asarray(opaque(read_image(transparent(kind))))
    assert shown[0].tolist() == [[0, 0, 0], [255, 255, 255], [255, 255, 255]]
    preprocessing = Preprocessing((1, 3), interpolation="nearest")
    assert as_pixels(Image.open(io.BytesIO(transparent(kind))), preprocessing)[:, 0].T.tolist() == shown[0].tolist()


def test_half_transparent_is_half_white():
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert np.asarray(opaque(to_display(half)))[0, 0].tolist() == [127] * 3


def test_a_network_of_four_channels_is_shown_the_opacity():
    rgba = Image.fromarray(random_pixels(8, 8, 4))
    pixels = Preprocessing(8, channels=4).photograph(rgba)
    assert (pixels.permute(1, 2, 0).numpy() == np.asarray(rgba)).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", *(["AVIF"] if "AVIF" in formats() else [])])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_camera_was_held_and_once(kind, orientation):
    undone = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that each orientation is undone by, undone
    held = smooth().transpose(Image.Transpose(undone[orientation])) if orientation > 1 else smooth()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    shown = read_image(written(held, kind, exif=exif))
    assert shown.size == smooth().size
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(smooth())).max() < 20
    assert to_display(shown).tobytes() == shown.tobytes()


def test_damaged_exif_data_keep_no_image_from_being_shown():
    data = written(smooth(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert read_image(data).tobytes() == smooth().tobytes()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_shown(kind):
    first, second = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    lossless = {"lossless": True} if kind == "WEBP" else {}
    shown = read_image(written(first, kind, save_all=True, append_images=[second], **lossless))
    assert np.asarray(opaque(shown))[4, 4].tolist() == [255, 0, 0]


def test_an_image_that_is_ordinary_stays_as_it_is():
    assert to_display(smooth()).tobytes() == smooth().tobytes()
    assert open_image(written(smooth())).image.tobytes() == smooth().tobytes()


# What is damaged, or too large


@pytest.mark.parametrize("kind", formats())
def test_a_damaged_file_is_one_sentence_and_no_other_error(kind, tmp_path):
    whole = written(Image.fromarray(random_pixels(12, 10, 3)), kind)
    random = np.random.default_rng(1)
    refused = 0
    for number in range(150):
        data = bytearray(whole)
        if number % 3 == 0:
            data = data[: random.integers(len(data))]
        else:
            for place in random.integers(0, len(data) if number % 3 == 1 else 60, 4):
                data[place] = random.integers(256)
        said = sentence(lambda data=data: read_image(bytes(data), "mine"))
        assert said is None or (said.startswith("image 'mine' ") and "\n" not in said)
        refused += said is not None
    assert refused >= 50 - 5 * (kind in ("GIF", "BMP"))  # all that are cut short, but for what ends in padding


@pytest.mark.parametrize(
    "error", [MemoryError, OverflowError, NotImplementedError, RuntimeError, AssertionError, KeyError]
)
def test_whatever_a_decoder_raises_is_one_sentence(error, monkeypatch):
    def fail(*_):
        raise error("inside")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(InputError, match=rf"^image 'mine' cannot be read \({error.__name__}: .*expected a whole PNG"):
        read_image(written(smooth()), "mine")


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (20000, 10000), (15000, 9000), (2**28, 1)])
def test_too_many_pixels_are_refused_before_they_are_decoded(size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PIL warns of some, and refuses others itself
        with pytest.raises(InputError, match=r"(has .* pixels: expected at most 134217728|2147483647)"):
            read_image(png_of(*size))


def test_how_large_an_image_may_be_can_be_set(monkeypatch):
    data = written(smooth())
    monkeypatch.setattr(images, "MOST_PIXELS", 599)
    with pytest.raises(InputError, match="has 30 x 20 pixels: expected at most 599 in all"):
        read_image(data)
    monkeypatch.setattr(images, "MOST_PIXELS", 600)
    assert read_image(data).size == (30, 20)
    monkeypatch.setattr(images, "MOST_BYTES", len(data) - 1)
    with pytest.raises(InputError, match=f"has {len(data)} bytes"):
        read_image(data)


def test_a_huge_file_is_refused_by_its_length(tmp_path):
    file = tmp_path / "large.webp"
    with file.open("wb") as opened:
        opened.truncate(2**34)  # holes: it takes no space
    with pytest.raises(InputError, match=r"17179869184 bytes: expected at most"):
        read_image(file)


def test_text_of_a_png_is_read_and_bounded():
    info = PngInfo()
    info.add_itxt("phosphene", "ü" * 2_000_000)
    info.add_text("Title", "a title", zip=True)
    assert open_image(written(smooth(), pnginfo=info)).text == {"phosphene": "ü" * 2_000_000, "Title": "a title"}
    texts = b"".join(chunk(b"tEXt", b"%d\0" % number) for number in range(1001))
    long = struct.pack(">I", 2**27) + b"iTXt"  # says that it is, and is not
    for before, wanted in (
        (texts, "1000 texts"),
        (long, "67108864 bytes of text"),
        (chunk(b"abCd", b"") * 100_001, ""),
    ):
        with pytest.raises(InputError, match=f"over .*{wanted}.*expected an ordinary PNG"):
            open_image(png_of(8, 8, before=before))
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**24)))
    with pytest.raises(InputError, match="cannot be read"):
        open_image(png_of(8, 8, before=bomb))


def test_a_jpeg_is_not_gone_through_for_ever():
    data = written(Image.fromarray(random_pixels(64, 64)), "JPEG", progressive=True)
    assert read_image(data).size == (64, 64)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert read_image(data[:-2] + scan * 20 + data[-2:]).size == (64, 64)
    with pytest.raises(InputError, match="over 100 scans"):
        read_image(data[:-2] + scan * 101 + data[-2:])
    video = data + random_pixels(2_000_000).tobytes()  # as some telephones put it behind
    assert read_image(video).tobytes() == read_image(data).tobytes()


def test_warnings_are_kept_from_the_user_and_given_back_also_among_threads():
    icon = Image.fromarray(random_pixels(64, 64), "P")
    icon.putpalette(random_pixels(768).tolist())
    data = written(icon, transparency=bytes(range(256)))  # PIL warns of such when it converts them to RGB
    large = black_png(10000, 9000)  # and of such
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters = list(warnings.filters)
        failed = []

        def read(what: bytes, times: int) -> None:
            try:
                for _ in range(times):
                    read_image(what)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=read, args=job) for job in [(data, 60), (large, 1), (data, 60)]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert warnings.filters == filters


# Photographs


@pytest.mark.parametrize("resize", ["shorter", "squash"])
@pytest.mark.parametrize("size", [(300, 200), (64, 64), (31, 200), (900, 100)])
def test_an_ordinary_photograph_is_resized_and_then_cut(size, resize):
    image = Image.fromarray(random_pixels(size[1], size[0], 3))
    preprocessing = Preprocessing(32, crop=0.875, resize=resize)
    scale = 32 / 0.875 / min(size)
    wide, high = (round(side * scale) if resize == "shorter" else round(32 / 0.875) for side in size)
    left, top = round((wide - 32) / 2), round((high - 32) / 2)
    wanted = image.resize((wide, high), Image.Resampling.BICUBIC).crop((left, top, left + 32, top + 32))
    assert (preprocessing.photograph(image).permute(1, 2, 0).numpy() == np.asarray(wanted)).all()


@pytest.mark.parametrize("size", [(5000, 20), (20, 5000), (4001, 33)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_a_long_photograph_is_cut_as_if_it_had_been_resized_whole(size, interpolation, monkeypatch):
    y, x = np.mgrid[: size[1], : size[0]]
    waves = np.stack([np.sin(x / 40 + y / 7), np.cos(x / 90 - y / 50), np.sin(y / 60)], -1)
    image = Image.fromarray((127.5 + 120 * waves).astype(np.uint8))
    preprocessing = Preprocessing((160, 128), crop=0.9, interpolation=interpolation)
    whole = preprocessing.photograph(image)
    monkeypatch.setattr("phosphene.networks.preprocessing.LARGE", 0)
    cut = preprocessing.photograph(image)
    assert (cut - whole).abs().max() <= (1 if interpolation != "nearest" else 20)
    assert (cut - whole).abs().mean() < 0.2


def most_memory() -> int:
    """The most that this process has had at once since `clear_refs` was written to, in kibibytes."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux says what is used at most")
def test_an_image_of_one_column_takes_no_more_memory_than_others(tmp_path):
    for number, (width, height) in enumerate([(1, 20_000), (1, 1_000_000), (1_000_000, 1), (3, 400_000)]):
        (tmp_path / f"{number}.png").write_bytes(black_png(width, height))
    paths = sorted(tmp_path.iterdir())
    Path("/proc/self/clear_refs").write_text("5")
    before = most_memory()
    for path in paths:
        for preprocessing in (Preprocessing(224, crop=0.875), Preprocessing((96, 224), resize="squash")):
            assert (as_pixels(path, preprocessing) == 0).all()
    assert sum(len(names) for names, _ in PhotoSet.of(tmp_path).batches(Preprocessing(224))) == len(paths)
    (tmp_path / "ordinary.png").write_bytes(written(Image.fromarray(random_pixels(64, 64, 3))))
    assert image_statistics.measure_image_statistics([*paths, tmp_path / "ordinary.png"], 64).count == 5
    assert most_memory() - before < 150 * 1024  # the first, resized whole, has 4 gibibytes


# What is kept in a provenance


@pytest.mark.parametrize(
    "pixels", [random_pixels(7, 5, 3), random_pixels(5, 7, 3).transpose(1, 0, 2), random_pixels(3, 4, 1)]
)
def test_pixels_come_back_from_text(pixels):
    assert (decode_pixels(encode_pixels(pixels)) == pixels).all()


def archive(*members: tuple[str, bytes]) -> str:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members:
            opened.writestr(name, data)
    return base64.b64encode(file.getvalue()).decode()


def array(shape: str, dtype: str = "|u1", data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + data


HOSTILE = {
    "no base64": "§",
    "no archive": "bm90IGEgemlw",
    "nothing": "",
    "two arrays": archive(("pixels.npy", array("(1, 1, 1)", data=b"a")), ("other.npy", b"")),
    "another array": archive(("other.npy", array("(1, 1, 1)", data=b"a"))),
    "no array": archive(("pixels.npy", b"hello")),
    "too short": archive(("pixels.npy", array("(9, 9, 3)", data=b"a"))),
    "too long": archive(("pixels.npy", array("(1, 1, 1)", data=b"ab"))),
    "huge": archive(("pixels.npy", array("(99999, 99999, 3)"))),
    "negative": archive(("pixels.npy", array("(-1, -1, 1)", data=b"a"))),
    "empty": archive(("pixels.npy", array("(0, 4, 3)"))),
    "two axes": archive(("pixels.npy", array("(1, 1)", data=b"a"))),
    "objects": archive(("pixels.npy", array("(1, 1, 1)", "|O", b"a"))),
    "numbers": archive(("pixels.npy", array("(1, 1, 1)", "<f8", bytes(8)))),
    "zero bytes": archive(("pixels.npy", array("(1, 1, 1)", "|V0"))),
    "another version": archive(("pixels.npy", array("(1, 1, 1)", data=b"a", version=b"\2\0"))),
    "a bomb": archive(("pixels.npy", array("(1, 1, 1)", data=bytes(10**8)))),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_text_that_is_no_image_is_refused_before_anything_is_allocated(what):
    start = time.monotonic()
    with pytest.raises(InputError, match="within another's provenance cannot be read"):
        decode_pixels(HOSTILE[what])
    assert time.monotonic() - start < 1


def test_text_that_is_too_long_is_refused(monkeypatch):
    monkeypatch.setattr("phosphene.provenance.pixels.LONGEST_TEXT", 100)
    with pytest.raises(InputError, match="over 100 characters"):
        decode_pixels(encode_pixels(random_pixels(20, 20, 3)))


# Files that were found


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not here")
def test_each_file_that_once_did_harm_is_shown_or_one_sentence():
    files = [*CASES.glob("image_*"), CASES / "eps_loop.png"]
    assert len(files) >= 6
    for file in files:
        start = time.monotonic()
        said = sentence(lambda file=file: as_pixels(file, Preprocessing(64)))
        assert said is None or file.name in said
        assert time.monotonic() - start < 5
    with pytest.raises(InputError, match="it is PostScript"):
        load(CASES / "eps_loop.png")
