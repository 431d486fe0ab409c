"""HEST-Bench as published, on a small stand-in of its folders."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("sklearn", reason="training needs the extra [train]")
anndata = pytest.importorskip("anndata", reason="training needs the extra [train]")

from support.hest_factory import GENES, write_task

from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.training.evaluate.hest_bench import (
    evaluate_task,
    find_tasks,
    log_counts,
    read_patches,
    stored_embeddings,
)
from stamp_deploy.training.verbs_evaluate import hest_bench as verb


def test_the_verb_gives_the_figures_of_the_published_regression(tmp_path: Path) -> None:
    """Against the published code's steps, one by one: uncentred targets, no intercept, lsqr, PCA of seed 1."""
    from scipy.stats import pearsonr
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    bench, stored = write_task(tmp_path)
    done = CliRunner().invoke(verb, [str(bench), "--embeddings", str(stored), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "out" / "hest-bench.json").read_text())
    found = document["tasks"]["IDC"]["embeddings"]
    data = {}
    for name in ("S0", "S1", "S2"):
        with h5py.File(stored / "IDC" / f"{name}.h5") as file:
            x, codes = np.asarray(file["embeddings"]), np.asarray(file["barcodes"]).astype(str).ravel()
        counts = anndata.read_h5ad(bench / "IDC" / "adata" / f"{name}.h5ad")[codes, GENES].X
        data[name] = x, np.log1p(np.asarray(counts))
    means = []
    for number, test in enumerate(data):
        x, y = (np.concatenate([data[n][k] for n in data if n != test]) for k in (0, 1))
        pipe = Pipeline([("scaler", StandardScaler()), ("PCA", PCA(10, random_state=1))])
        x = pipe.fit_transform(x)
        ridge = Ridge(solver="lsqr", alpha=100 / (x.shape[1] * 6), fit_intercept=False, max_iter=1000).fit(x, y)
        predicted = ridge.predict(pipe.transform(data[test][0]))
        r = [pearsonr(data[test][1][:, g], predicted[:, g])[0] for g in range(6)]
        means.append(np.mean(r))
        assert found["splits"][number]["mean_r"] == pytest.approx(means[-1], abs=1e-3)
        assert [found["genes"][g][number] for g in GENES] == pytest.approx(r, abs=3e-3)
        assert found["splits"][number]["test"] == [test] and found["splits"][number]["spots"] == [80, 40]
    assert found["mean_r"] == document["average"]["embeddings"] == pytest.approx(np.mean(means), abs=1e-3)
    assert min(np.mean(found["genes"][g]) for g in GENES[:4]) > 0.5 > max(np.mean(found["genes"][g]) for g in GENES[4:])


def test_a_gene_that_does_not_vary_is_told_and_not_counted(tmp_path: Path) -> None:
    bench, stored = write_task(tmp_path)
    path = bench / "IDC" / "adata" / "S1.h5ad"
    data = anndata.read_h5ad(path)
    data.X[:, 3] = 0
    data.write_h5ad(path)
    (task,) = find_tasks(bench)
    split = evaluate_task(task, stored_embeddings(stored))["splits"][1]
    assert split["constant_genes"] == ["G2"] and np.isfinite(split["mean_r"])


def test_counts_follow_the_patches(tmp_path: Path) -> None:
    bench, _ = write_task(tmp_path)
    (task,) = find_tasks(bench)
    patches, barcodes = read_patches(task.samples[0])
    assert patches.shape == (40, 224, 224, 3) and barcodes[:2] == ["S1-0", "S1-1"]
    values = log_counts(task.samples[0], GENES, barcodes)
    data = anndata.read_h5ad(task.samples[0].counts)
    assert values[7, 2] == pytest.approx(np.log1p(data["S1-7", "G2"].X.item()))


def test_folders_that_are_not_the_benchmark_are_refused(tmp_path: Path) -> None:
    bench, stored = write_task(tmp_path)
    with pytest.raises(UsageError, match="no task of HEST-Bench"):
        find_tasks(tmp_path / "nothing")
    with pytest.raises(UsageError, match="tasks: IDC"):
        find_tasks(bench, ["PRAD"])
    (task,) = find_tasks(bench)
    with pytest.raises(DataError, match="no embeddings with barcodes"):
        stored_embeddings(tmp_path)("IDC", task.samples[0])
    (stored / "IDC" / "S0.h5").unlink()
    with pytest.raises(DataError, match="S0"):
        evaluate_task(task, stored_embeddings(stored))
    (bench / "IDC" / "splits" / "test_0.csv").write_text("sample_id,patches_path,expr_path\nS1,patches/S1.h5,x\n")
    with pytest.raises(DataError, match="tests on S1, which it learned from"):
        find_tasks(bench)
    (bench / "IDC" / "var_50genes.json").write_text("[]")
    with pytest.raises(DataError, match="list of genes"):
        find_tasks(bench)
    done = CliRunner().invoke(verb, [str(bench), "-o", str(tmp_path / "x")])
    assert done.exit_code == 2 and not (tmp_path / "x").exists()


def test_a_run_embeds_the_patches_adapted_and_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft", reason="training needs the extra [train]")
    from support.cohort_factory import make_cohort, make_run, program_gmt

    bench, _ = write_task(tmp_path, spots=6)
    cohort, gmt = make_cohort(tmp_path / "cohort", {"a": "p1", "b": "p2"}, spots=20), program_gmt(tmp_path / "p.gmt")
    run = make_run(tmp_path / "run", cohort, gmt, ("b",))
    done = CliRunner().invoke(verb, [str(bench), "--run", str(run), "-o", str(tmp_path / "out")])
    assert done.exit_code != 0 and "the run sees 32 px at 1 um" in str(done.exception)
    facts = json.loads((run / "run.json").read_text()) | {"mpp": 0.5}
    (run / "run.json").write_text(json.dumps(facts))
    done = CliRunner().invoke(verb, [str(bench), "--run", str(run), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert set(json.loads((tmp_path / "out" / "hest-bench.json").read_text())["average"]) == {"adapted", "frozen"}
