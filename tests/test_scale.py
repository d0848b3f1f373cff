"""The simulation of bench/scale.py where its outcome is known, and what docs/scale.md says of requests and queries."""

import math
import re
import sys
from pathlib import Path

import pyarrow.dataset as dataset
import pytest
from test_atlas import own, planned

from phosphene.atlas import work as atlas_work
from phosphene.atlas.missing import missing_work
from phosphene.atlas.rows import COLUMNS
from phosphene.atlas.store import Store
from phosphene.atlas.worker import Worker

pytest.importorskip("simpy", reason="simpy is not installed")

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "bench"))

from scale import Far, Setting, simulate  # noqa: E402


@pytest.mark.parametrize(
    ("setting", "seconds"),
    [
        (Setting(1, 10, work=2, idle=1, opening=5), 5 + 10 * 3),
        (Setting(2, 10, work=2, idle=1, opening=5), 5 + 5 * 3),
        (Setting(3, 10, work=2), 4 * 2),  # the last of them alone
        (Setting(2, 2, pieces=5, apart=True, work=2, opening=7), 7 + 5 * 2),
        (Setting(1, 4, pieces=5, apart=True, work=2, opening=7), 4 * (7 + 5 * 2)),
        (Setting(100, 1000, work=1, hand=0.1), 1000 * 0.1 + 1),  # the driver has never a rest
        (Setting(50, 1000, work=1, hand=0.05, hand_each=0.001), 1000 * 0.1 + 1),
        (Setting(100, 1000, work=1, reads=55, read_limit=550), 1000 * 0.1 + 1),
        (Setting(4, 40, work=1, slow=0.5, slowness=3), 15),  # two make 30 and two 10
    ],
)
def test_the_simulation_where_arithmetic_suffices(setting, seconds):
    found = simulate(setting)
    assert found.seconds == pytest.approx(seconds, rel=1e-6, abs=1e-6)
    assert found.lost == 0
    assert 0 < found.utilisation <= 1


def test_a_prefix_takes_no_more_requests_than_its_limit_and_several_take_more():
    asking = Setting(1000, 20_000, work=0.1, writes=33, write_limit=3500)
    one, ten = simulate(asking), simulate(Setting(**{**vars(asking), "prefixes": 10}))
    assert one.requests == pytest.approx(3500, rel=0.02)
    assert one.prefix > 0.98
    assert ten.requests == pytest.approx(35_000, rel=0.05)


def test_a_maker_that_is_lost_opens_its_network_again_and_its_piece_is_made_anew():
    found = simulate(Setting(1, 3, work=2, opening=5, restart=1), kills=[8.0])  # within the second piece
    assert (found.seconds, found.lost) == (8 + 1 + 5 + 2 * 2, 1)
    whole = simulate(Setting(1, 1, pieces=3, work=2, opening=5, restart=1), kills=[8.0])  # what was finished stays
    assert whole.seconds == found.seconds
    often = simulate(Setting(20, 2000, work=2, opening=5, life=100.0), seed=1)
    assert often.lost > 10
    assert simulate(Setting(20, 2000, work=2, opening=5)).seconds < often.seconds < math.inf


def test_a_piece_asks_an_object_store_as_often_as_the_docs_say(tmp_path):
    Far.empty()
    store = planned(own(tmp_path, "net", 0), "far://atlas", classes=[], layers=["3"], frames=0)
    worker, (piece, *_) = Worker(store.place), missing_work(store.plan(), [])
    Far.requests.clear()
    assert worker.make(piece)[0] == 32
    assert Far.requests == {"GET": 32, "PUT": 33}


@pytest.mark.slow
def test_the_query_over_many_atlases_of_the_docs(tmp_path, monkeypatch):
    for name in ("one", "two"):
        place = tmp_path / f"atlases/network={name}"
        atlas_work.run(planned(own(tmp_path, name, len(name)), place, layers=["0"]).place)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    query, together = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "pyarrow" in block)
    names: dict = {}
    exec(query.replace("s3://bucket/atlases", "atlases"), names)
    assert set(names["table"].column_names) == {"network", "group", "unit", "robustness", "file"}
    assert sorted(names["table"]["network"].unique().to_pylist()) == ["one", "two"]
    assert names["table"].num_rows == sum(
        row["robustness"] > 0.9 for name in ("one", "two") for row in Store(f"atlases/network={name}").rows()
    )
    exec(together.replace("bucket/catalogue", str(tmp_path / "catalogue")), names)
    catalogue = dataset.dataset(tmp_path / "catalogue")
    assert catalogue.count_rows() == 2 * 13
    assert set(catalogue.schema.names) == {*COLUMNS, "network"} - {"curve"}
