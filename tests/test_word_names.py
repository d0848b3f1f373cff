"""Words that name units: planted ones are found, units of nothing are named by none; an atlas keeps and shows them."""

import contextlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CHROMIUM
from PIL import Image
from test_atlas_scores import planned, saved, take_photographs
from torch import nn

import phosphene
from phosphene import InputError, Preprocessing
from phosphene.atlas.labels import label_units
from phosphene.atlas.rows import NO_WORD, pack_rows, unpack_rows, word_columns
from phosphene.atlas.site import write_site
from phosphene.cli import label as label_verb
from phosphene.cli.program import main
from phosphene.default_progress import shown_by
from phosphene.judges.photo_set import PhotoSet
from phosphene.judges.word_names import CONFIDENCE, WordName, WordNamer, open_namer, read_words
from phosphene.networks.text import TextEncoder, TextTower

WORDS = ("red", "green", "blue", "yellow", "purple", "cyan")
HUES = torch.tensor([[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]]).float()
PHOTOGRAPHS = 300


class Eye(nn.Module):
    """Its embedding is the mean color, less gray."""

    num_classes = 0

    def forward(self, images):
        return images.mean((2, 3)) - 0.5


def encoder():
    """A network of images and texts whose embeddings are known: colors, and the names of six."""
    network = phosphene.open(Eye(), Preprocessing(size=16, mean=0.0, std=1.0), name="eye")

    def embed(prompts):
        return torch.stack([HUES[next(i for i, word in enumerate(WORDS) if word in prompt)] for prompt in prompts])

    network.texts = TextEncoder("eye", lambda: TextTower(nn.Linear(1, 1), lambda prompt: len(prompt.split()), 8, embed))
    return network


@pytest.fixture(scope="module")
def namer():
    """Of photographs of known cosines with words."""
    cosines = 0.3 * torch.randn(PHOTOGRAPHS, len(WORDS), generator=torch.Generator().manual_seed(0))
    names = tuple(map(str, range(PHOTOGRAPHS)))
    return WordNamer(WORDS, names, (10 * cosines).softmax(dim=1), 30), cosines


def test_units_planted_on_a_words_photographs_are_named_by_it(namer):
    words, cosines = namer
    for place, word in enumerate(WORDS):
        found = words.name(cosines[:, place] + 0.05 * torch.randn(PHOTOGRAPHS))
        assert (found.word, found.named) == (word, True)
        assert found.margin > 0
        assert found.score > found.null


def test_units_of_nothing_are_named_by_none_as_often_as_the_null_says(namer):
    words, _ = namer
    generator = torch.Generator().manual_seed(1)
    random = [words.name(torch.randn(PHOTOGRAPHS, generator=generator)).named for _ in range(400)]
    assert np.mean(random) < 3 * (1 - CONFIDENCE)
    assert not words.name(torch.zeros(PHOTOGRAPHS)).named


def test_a_unit_that_is_silent_on_most_photographs_is_not_named_by_their_order():
    """Photographs come sorted by what they show; those on which a unit is silent are in no order."""
    cosines = torch.zeros(PHOTOGRAPHS, len(WORDS))
    cosines[torch.arange(PHOTOGRAPHS), torch.arange(PHOTOGRAPHS) * len(WORDS) // PHOTOGRAPHS] = 0.5
    words = WordNamer(WORDS, tuple(map(str, range(PHOTOGRAPHS))), (10 * cosines).softmax(dim=1), 30)
    values = torch.zeros(PHOTOGRAPHS)
    values[::100] = 1
    assert not words.name(values).named


def test_the_score_is_soft_wpmi_of_the_paper(namer):
    words, cosines = namer
    values = cosines[:, 2]
    order = values.argsort(descending=True)[:30].tolist()
    likely = words.probabilities.double()
    evidence = [
        sum(math.log(1 + (0.998 - 0.028 * rank / 30) * (likely[photo, word].item() - 1) + 1e-7)
            for rank, photo in enumerate(order))
        for word in range(len(WORDS))
    ]  # fmt: skip
    found = words.name(values)
    scores = torch.tensor(evidence) - words.prior
    best, second = scores.topk(2).values.tolist()
    assert found.word == WORDS[int(scores.argmax())] == "blue"
    assert (found.score, found.margin) == pytest.approx((best, best - second), abs=1e-3)
    # p(t) is the mean of p(t|B) over shuffled photographs, which is that of photographs that have nothing in common.
    drawn = [words.name(torch.randn(PHOTOGRAPHS)).score for _ in range(100)]
    assert abs(np.mean(drawn)) < found.score / 4


def test_a_units_word_does_not_depend_on_the_other_units(namer):
    words, cosines = namer
    again = WordNamer(words.words, words.photographs, words.probabilities, words.top)
    again.name(torch.randn(PHOTOGRAPHS))
    assert again.name(cosines[:, 1]) == words.name(cosines[:, 1])


# What a network of images and texts says


def test_words_are_compared_with_photographs_by_the_networks_embeddings(tmp_path):
    folder = take_photographs(tmp_path / "photographs", 40)
    found = open_namer(encoder(), WORDS, PhotoSet.of(folder))
    assert (len(found.photographs), found.top) == (40, 5)
    for row, name in zip(found.probabilities, found.photographs, strict=True):
        color = torch.from_numpy(np.asarray(Image.open(folder / name)).copy()).float().mean((0, 1)) / 255 - 0.5
        cosines = nn.functional.cosine_similarity(HUES, color[None])
        torch.testing.assert_close(row, (10 * cosines).softmax(0), atol=1e-3, rtol=1e-3)


def test_words_and_photographs_that_cannot_be_are_refused(tmp_path, small):
    folder = take_photographs(tmp_path / "photographs", 10)
    with pytest.raises(InputError, match="10 photographs: expected at least 20"):
        open_namer(encoder(), WORDS, PhotoSet.of(folder))
    with pytest.raises(InputError, match="has no text tower"):
        open_namer(small, WORDS, PhotoSet.of(folder))
    with pytest.raises(InputError, match=r"'red .* has 13 tokens with its template"):
        open_namer(encoder(), ["red " * 9, "blue"], PhotoSet.of(folder))
    (tmp_path / "words.txt").write_text("\ufeffred\r\n\n blue \nred\n")
    assert read_words(tmp_path / "words.txt") == ["red", "blue"]
    for text, says in [("red\n", "has 1 words"), ("a" * 1001 + "\nb", "at most 1000"), (b"\xff\xfe", "UTF-8")]:
        (tmp_path / "bad.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(InputError, match=says):
            read_words(tmp_path / "bad.txt")


# In an atlas


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    net = saved(folder, "net", 0)
    photographs = take_photographs(folder / "photographs", 120)
    return planned(net, folder / "atlas", classes=(), layers=["1"]), phosphene.open(net), photographs


@pytest.mark.slow
def test_an_atlas_keeps_the_words_of_its_units_and_shows_them(atlas):
    store, network, photographs = atlas
    report = label_units(store, network, encoder(), WORDS, photographs)
    rows = {row["index"]: row for row in store.rows()}
    # The channels of the layer are the six hues; a photograph of few colors is named by the one that it has.
    assert [rows[i]["word"] for i in range(6)] == list(WORDS)
    assert report.named == 6
    assert all(row["word_by"] == "eye" and row["word_score"] > row["word_null"] for row in rows.values())
    page = write_site(store, network=network)
    folder = next((Path(store.place) / "site").iterdir())
    assert page.address.endswith("index.html")
    script = "".join(path.read_text() for path in folder.glob("units-*.js"))
    assert all(word in script for word in WORDS)
    assert '"words":true' in (folder / "data.js").read_text()


@pytest.mark.slow
def test_words_and_photographs_are_counted(atlas):
    store, network, photographs = atlas
    seen, told = [], []

    @contextlib.contextmanager
    def display(tally):
        seen.append(tally)
        yield lambda: None

    with shown_by(display):
        label_units(store, network, encoder(), WORDS, photographs, on_progress=lambda *counts: told.append(counts))
        label_units(store, network, encoder(), WORDS, photographs, on_progress=False)
        assert seen == []
        label_units(store, network, encoder(), WORDS, photographs)
        write_site(store, network=network, photographs=photographs, judges=[])
    assert told[-1] == (126, 126)
    assert [(tally.what, tally.done, tally.total) for tally in seen] == [
        ("words and photographs", 126, 126), ("photographs", 120, 120),
        ("images", 12, 12), ("photographs shown", 120, 120), ("photographs", 120, 120),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
def test_the_page_shows_a_units_word_and_finds_units_by_it(atlas, tmp_path):
    from playwright.sync_api import sync_playwright

    store, network, photographs = atlas
    label_units(store, network, encoder(), WORDS, photographs)
    page_file = write_site(store, network=network).address
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"file://{page_file}#/1/3")
        assert "Named yellow, by eye" in page.locator("#word").inner_text()
        page.screenshot(path=tmp_path / "page.png")
        page.fill("#query", "yellow")
        assert "yellow" in page.locator("#found li").first.inner_text()
        browser.close()


@pytest.mark.slow
def test_the_command_names_an_atlas(atlas, tmp_path, monkeypatch, capsys):
    store, _, photographs = atlas
    (tmp_path / "words.txt").write_text("\n".join(WORDS))
    words = ["label", store.place, "--words", str(tmp_path / "words.txt"), "--photographs", str(photographs)]
    assert main(words) == 2
    assert "expected -n clip:MODEL" in capsys.readouterr().err
    monkeypatch.setattr(label_verb, "open_argument", lambda args: encoder())
    assert main([*words, "-n", "clip:eye", "--trust"]) == 0
    told = capsys.readouterr().out
    assert "6 of 6 units are named by eye, from 12 of 120 photographs each" in told
    assert main([*words, "-n", "clip:eye", "--trust", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["units"]["1:3"]["word"] == "yellow"


def test_columns_of_words_are_kept_and_older_indices_have_none():
    named, other = WordName("fox", 2.0, 0.5, 1.0), WordName("fox", -math.inf, 0.1, 1.0)
    assert word_columns(named, "clip")["word"] == "fox"
    assert word_columns(other, "clip")["word"] == NO_WORD
    assert word_columns(other, "clip")["word_score"] is None
    assert set(word_columns(None, "").values()) == {None}
    assert unpack_rows(pack_rows([]), "an index") == []
