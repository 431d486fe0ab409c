"""Tiles as shards: the same pixels, read in order, over processes, with errors that name the file."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("webdataset", reason="shards need the extra [train]")

from support.cohort_factory import TILE, make_cohort, program_gmt
from support.cohort_samples import build, config, sample

from stamp_deploy.errors import DataError
from stamp_deploy.training.cohort import build as build_module
from stamp_deploy.training.cohort import load_cohort
from stamp_deploy.training.cohort.build import build_cohort
from stamp_deploy.training.cohort.shard_writer import SHARDS_FROM_GB, shard_count, wants_shards, write_shards
from stamp_deploy.training.cohort.shards import INDEX, ShardedTiles
from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.data import Loader
from stamp_deploy.training.epoch_plan import Rows
from stamp_deploy.training.loop import fit
from stamp_deploy.training.model import load_run
from stamp_deploy.training.model.embed import embed_tiles
from stamp_deploy.training.run_setup import prepare
from stamp_deploy.training.sections import make_sections
from stamp_deploy.training.shard_plan import plan_shards

MEAN, STD = (0.7, 0.55, 0.71), (0.2, 0.23, 0.17)
VIT = {"img_size": TILE, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2}


def stored(folder: Path, tiles: NDArray[np.uint8], tile_format: Any = "webp") -> ShardedTiles:
    folder.mkdir(parents=True, exist_ok=True)
    write_shards(folder, tiles, tile_format)
    return ShardedTiles(folder, tiles.shape)  # type: ignore[arg-type]


def noise(count: int, side: int = 8, seed: int = 0) -> NDArray[np.uint8]:
    """Tiles that no codec can guess."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def as_shards(cohort: Path) -> Path:
    """A cohort whose arrays become shards."""
    for one in load_cohort(cohort):
        write_shards(one.folder, np.asarray(one.tiles()))
        (one.folder / "tiles.npy").unlink()
    return cohort


def test_a_build_stores_the_same_pixels_as_shards(tmp_path: Path) -> None:
    path = config(tmp_path, sample(tmp_path, "S0"), sample(tmp_path, "S1"))
    arrays = build(path, tmp_path / "arrays")
    shards = build(config(tmp_path, sample(tmp_path, "S0"), sample(tmp_path, "S1"), store="shards"), tmp_path / "s")
    for a, b in zip(arrays, shards, strict=True):
        assert isinstance(b.tiles(), ShardedTiles) and not (b.folder / "tiles.npy").exists()
        np.testing.assert_array_equal(np.asarray(a.tiles()), np.asarray(b.tiles()))
        assert b.qc["store"]["format"] == "webp" and b.qc["store"]["bytes"] == sum(
            f.stat().st_size for f in b.folder.glob("*.tar")
        )
    again = build(config(tmp_path, sample(tmp_path, "S0"), store="shards", tile_format="jpeg"), tmp_path / "jpeg")
    lossy, exact = np.asarray(again["S0"].tiles(), np.int64), np.asarray(arrays["S0"].tiles(), np.int64)
    assert 0 < np.abs(lossy - exact).mean() < 4


def test_any_reader_of_webdataset_opens_them(tmp_path: Path) -> None:
    import imagecodecs
    import webdataset

    tiles = noise(70)
    made = stored(tmp_path, tiles)
    urls = [str(s.path) for s in made.shards]
    found = {int(s["__key__"]): imagecodecs.webp_decode(s["webp"]) for s in webdataset.WebDataset(urls, shardshuffle=0)}
    assert sorted(found) == list(range(70)) and len(urls) == 2
    assert all(np.array_equal(found[i], tiles[i]) for i in found)
    order = np.concatenate([s.rows for s in made.shards])
    assert not np.array_equal(order, np.arange(70)), "a shard holds tiles from all over the section"


@pytest.mark.parametrize(
    "key", [3, -1, slice(None), slice(5, 2, -1), slice(40, 99), np.array([7, 7, 0]), [1, 2], np.arange(50) % 3 == 0,
            (slice(0, 9), slice(2, 6), slice(1, 4)), (4, slice(2, 6)), (np.array([9, 1]), 0, 0, 2)],
    ids=str,
)  # fmt: skip
def test_they_are_indexed_as_an_array_is(key: Any, tmp_path: Path) -> None:
    tiles = noise(50)
    made = stored(tmp_path, tiles)
    np.testing.assert_array_equal(made[key], tiles[key])
    assert len(made) == 50 and made.shape == tiles.shape and made.dtype == tiles.dtype


def test_which_form_is_chosen() -> None:
    one = 1800 * 224 * 224 * 3
    assert not wants_shards("auto", one, 4) and wants_shards("auto", one, 1000)
    assert wants_shards("shards", 1, 1) and not wants_shards("arrays", one, 10**6)
    edge = int(SHARDS_FROM_GB * 1e9)
    assert not wants_shards("auto", edge, 1) and wants_shards("auto", edge + 1, 1)
    assert [shard_count(n) for n in (0, 1, 63, 64, 256, 1800, 240 * 9 + 1)] == [1, 1, 1, 2, 8, 8, 10]


def test_a_large_cohort_becomes_shards_by_itself_and_grows_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sample(tmp_path, "S0")
    assert not isinstance(build(config(tmp_path, first), tmp_path / "out")["S0"].tiles(), ShardedTiles)
    raw = np.asarray(load_cohort(tmp_path / "out")["S0"].tiles()).nbytes
    monkeypatch.setattr("stamp_deploy.training.cohort.shard_writer.SHARDS_FROM_GB", 1.5 * raw / 1e9)
    more = config(tmp_path, first, sample(tmp_path, "S1", patient_id="P2"))
    made = build_cohort(more, tmp_path / "out", append=True, pictures=False, log=lambda line: None)
    assert not isinstance(made["S0"].tiles(), ShardedTiles), "what is there is left as it is"
    assert isinstance(made["S1"].tiles(), ShardedTiles), "two of that size are more than the limit"


def test_a_build_of_shards_goes_on_from_finished_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = sample(tmp_path, "S0"), sample(tmp_path, "S1", counts=np.full((9, 30), -1, np.float32))
    with pytest.raises(DataError):
        build(config(tmp_path, good, bad, store="shards"), tmp_path / "out")
    written: list[Path] = []
    monkeypatch.setattr(build_module, "write_shards", lambda p, *a: written.append(p) or write_shards(p, *a))  # type: ignore[func-returns-value]
    made = build(config(tmp_path, good, sample(tmp_path, "S1"), store="shards"), tmp_path / "out")
    assert [p.name for p in written] == ["S1"] and len(made["S0"].tiles()) == made["S0"].n_spots


def layout(sizes: list[int], seed: int = 0) -> list[list[NDArray[np.int64]]]:
    rng = np.random.default_rng(seed)
    return [list(np.array_split(rng.permutation(n), shard_count(n))) for n in sizes]


def first_batch(batches: list[list[Rows]], sections: int) -> list[float]:
    """When each section comes first, in parts of the epoch, over all processes."""
    found = [1.0] * sections
    for own in batches:
        for number, batch in enumerate(own):
            for i, _ in batch:
                found[i] = min(found[i], (number + 1) / len(own))
    return found


@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_row_once_and_every_section_in_the_first_fifth(world: int) -> None:
    sizes = [256, 1800, 700, 3000, 500, 1200] * 20
    shards = layout(sizes)
    plan = plan_shards(shards, 8, 48, np.random.default_rng(3), world)
    for i, size in enumerate(sizes):
        rows = np.concatenate([r for own in plan for batch in own for j, r in batch if j == i])
        assert np.array_equal(np.sort(rows), np.arange(size))
    assert max(first_batch(plan, len(sizes))) <= 0.2
    lengths = [len(own) for own in plan]
    assert max(lengths) - min(lengths) <= 2, "no process has more to do than another"
    pieces = [r for own in plan for batch in own for _, r in batch]
    assert max(map(len, pieces)) <= 48 and np.mean([len(r) for r in pieces]) > 30
    distinct = [len({i for i, _ in batch}) == len(batch) for own in plan for batch in own]
    assert np.mean(distinct) > 0.9


@pytest.mark.parametrize("world", [1, 3])
def test_a_shard_is_used_by_one_process_within_a_short_time(world: int) -> None:
    shards = layout([1800] * 30)
    of = [np.empty(1800, np.int64) for _ in shards]
    for i, own in enumerate(shards):
        for number, rows in enumerate(own):
            of[i][rows] = number
    used: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for rank, batches in enumerate(plan_shards(shards, 8, 48, np.random.default_rng(0), world)):
        for place, batch in enumerate(batches):
            for i, rows in batch:
                for number in np.unique(of[i][rows]):
                    used.setdefault((i, int(number)), []).append((rank, place))
    assert len(used) == 30 * 8
    assert all(len({rank for rank, _ in uses}) == 1 for uses in used.values())
    spans = [uses[-1][1] - uses[0][1] for uses in used.values()]
    assert np.median(spans) < 15, "of some 150 batches"


def test_platforms_are_balanced_over_shards_too() -> None:
    groups = ["visium"] * 9 + ["xenium"]
    plan = plan_shards(layout([1000] * 10), 4, 48, np.random.default_rng(0), 1, groups)
    seen = [groups[i] for batch in plan[0] for i, _ in batch]
    assert seen.count("xenium") / len(seen) == pytest.approx(0.5, abs=0.02) and set(range(10)) == {
        i for batch in plan[0] for i, _ in batch
    }


def test_more_processes_than_shards_still_have_batches() -> None:
    plan = plan_shards(layout([20, 20]), 8, 48, np.random.default_rng(0), 4)
    assert len(plan) == 4 and all(own for own in plan)


def sections_of(cohort: Path) -> list[Any]:
    settings = TrainConfig(targets="genes", n_genes=2)
    return make_sections(settings, load_cohort(cohort).samples, None, ["RED0", "BLUE1"])


def loader(sections: list[Any], threads: int = 1, rank: int = 0, world: int = 1) -> Loader:
    settings = TrainConfig(batch_slides=2, batch_spots=12, shift_um=2.0, flips=True, seed=5)
    return Loader(sections, settings, TILE - 4, MEAN, STD, 1.0, threads=threads, rank=rank, world=world)


def test_batches_are_those_of_arrays_bit_for_bit_and_each_shard_is_read_once(tmp_path: Path) -> None:
    arrays = sections_of(make_cohort(tmp_path / "arrays", {"a": "p1", "b": "p2", "c": "p3"}, spots=100))
    shards = sections_of(as_shards(make_cohort(tmp_path / "shards", {"a": "p1", "b": "p2", "c": "p3"}, spots=100)))
    ours, theirs = loader(shards), loader(arrays)
    seen: set[tuple[float, ...]] = set()
    for number, (rows, batch) in enumerate(zip(ours.mine(1), ours.epoch(1), strict=True)):
        expected = theirs.make(rows, 1, number)
        assert torch.equal(batch.tiles, expected.tiles) and torch.equal(batch.target, expected.target)
        seen |= {tuple(row) for row in batch.target.tolist()}
    assert len(seen) > 290, "all spots"
    assert ours._buffer is not None and ours._buffer.reads == sum(len(s.tiles.shards) for s in shards) == 9
    several = list(loader(shards, threads=3).epoch(1, 2))
    alone = list(loader(shards).epoch(1))[2:]
    assert all(torch.equal(a.tiles, b.tiles) for a, b in zip(several, alone, strict=True)), "of a run that goes on"


def test_processes_share_the_shards_and_have_as_many_batches(tmp_path: Path) -> None:
    shards = sections_of(as_shards(make_cohort(tmp_path / "c", {"a": "p1", "b": "p2", "c": "p3"}, spots=100)))
    two = [loader(shards, rank=rank, world=2) for rank in range(2)]
    assert len({one.batches_per_epoch() for one in two}) == 1
    for epoch in range(3):
        rows = [[(i, int(r)) for batch in one.mine(epoch) for i, own in batch for r in own] for one in two]
        assert len(two[0].mine(epoch)) == len(two[1].mine(epoch)) == two[0].batches_per_epoch()
        assert not set(rows[0]) & set(rows[1])


def test_a_cohort_may_hold_both_forms(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "c", {"a": "p1", "b": "p2"}, spots=100)
    one = load_cohort(cohort)["a"]
    write_shards(one.folder, np.asarray(one.tiles()))
    (one.folder / "tiles.npy").unlink()
    mixed = loader(sections_of(cohort))
    rows = list(chain.from_iterable(mixed.mine(0)))
    assert sum(len(r) for i, r in rows if i == 0) == sum(len(r) for i, r in rows if i == 1) == 100
    assert sum(len(batch.tiles) for batch in mixed.epoch(0)) == 200


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
def test_a_damaged_shard_is_named(damage: str, tmp_path: Path) -> None:
    made = stored(tmp_path, noise(70))
    bad = made.shards[1].path
    if damage == "bit":
        flip(bad, int(made.shards[1].offsets[3]) + 40)
    elif damage == "cut":
        bad.write_bytes(bad.read_bytes()[:5000])
    else:
        bad.unlink()
    assert made.take(made.shards[0].rows).shape[0] == 35, "the others can be read"
    for route in (lambda: made.take(made.shards[1].rows[:1]), lambda: made.read(1)):
        with pytest.raises(DataError) as caught:
            route()
        assert caught.value.path == bad and "build the cohort again" in str(caught.value.remedy)
        assert ("SHA-256" in caught.value.cause) == (damage != "gone")


def test_a_shard_of_something_else_is_refused_though_its_hash_fits(tmp_path: Path) -> None:
    made = stored(tmp_path, noise(70))
    other = stored(tmp_path / "other", noise(70, side=16))
    shard = other.shards[0]
    out = np.empty((8, 8, 3), np.uint8)
    with pytest.raises(DataError, match="cannot be decoded"):
        made.decode(other.read(0)[int(shard.rows[0])], out, made.shards[0])
    with pytest.raises(DataError, match="cannot be decoded"):
        made.decode(b"no picture", out, made.shards[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(schema="other"),
        lambda d: d.update(format="tiff"),
        lambda d: d["shards"].pop(),
        lambda d: d["shards"][0].pop("sha256"),
        lambda d: d["shards"][0]["rows"].__setitem__(0, 999),
        lambda d: d["shards"][0]["sizes"].pop(),
        lambda d: d.update(tile_px=9),
    ],
)
def test_an_index_that_cannot_be_right_is_refused(change: Any, tmp_path: Path) -> None:
    made = stored(tmp_path, noise(70))
    document = json.loads((tmp_path / INDEX).read_text())
    change(document)
    (tmp_path / INDEX).write_text(json.dumps(document))
    with pytest.raises(DataError) as caught:
        ShardedTiles(tmp_path, made.shape)
    assert caught.value.path == tmp_path / INDEX and caught.value.remedy


def test_training_from_shards_agrees_with_training_from_arrays(tmp_path: Path) -> None:
    gmt = program_gmt(tmp_path / "p.gmt")
    people = {"a": "p1", "b": "p2", "v": "p3"}
    found = {}
    for store in ("arrays", "shards"):
        cohort = make_cohort(tmp_path / store, people, spots=120)
        if store == "shards":
            as_shards(cohort)
        settings = TrainConfig(
            cohort=str(cohort), gmt=str(gmt), validation=("v",), pfm="timm/vit_tiny_patch16_224",
            timm_kwargs=json.dumps(VIT), tile_px=TILE, mpp=1.0, precision="fp32", threads=1, epochs=2, batch_spots=16,
            progress=False, controls=False, lr=1e-3,
        )  # fmt: skip
        start = prepare(settings)
        info = fit(settings, tmp_path / f"run-{store}")
        model, read = load_run(tmp_path / f"run-{store}")
        found[store] = info.metrics["validation_r"], embed_tiles(model, read, start.train[0].tiles, frozen=True)
    assert np.array_equal(found["arrays"][1], found["shards"][1]), "embeddings of the same pixels"
    assert found["shards"][0] == pytest.approx(found["arrays"][0], abs=0.05) and found["shards"][0] > 0.2
