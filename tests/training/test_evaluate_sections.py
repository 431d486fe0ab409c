"""`evaluate --cohort` also takes a folder of legacy sections, or the config of `cohort build`."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("anndata", reason="needs the extra [train]")

from stamp_deploy.errors import DataError
from stamp_deploy.training.evaluate.foreign_sections import cohort_at


@pytest.fixture
def section(data_dir: Path, tmp_path: Path) -> Path:
    """A folder that holds the files of one real section under a new name."""
    for end in (".tsv.gz", "_selection.tsv", "_HE.jpg"):
        (tmp_path / f"X1{end}").symlink_to(data_dir / "st" / "her2st" / f"C2{end}")
    return tmp_path


def test_a_folder_of_sections_is_built_at_the_resolution_asked_for(section: Path) -> None:
    cohort = cohort_at(section, tile_px=56, mpp=2.0)
    (sample,) = cohort.samples
    assert (cohort.tile_px, cohort.mpp, sample.id, sample.patient) == (56, 2.0, "X1", "unstated-X1")
    assert sample.tiles().shape == (sample.n_spots, 56, 56, 3)
    assert sample.mpp == pytest.approx(0.688, abs=0.002)  # 200 um between spots of about 291 px


def test_a_config_is_built_as_it_says(section: Path) -> None:
    config = section / "other.toml"
    config.write_text(
        'tile_px = 32\nmpp = 4.0\n[[samples]]\nid = "A"\npatient_id = "P"\nformat = "legacy-st"\n'
        'counts = "X1.tsv.gz"\nspots = "X1_selection.tsv"\nimage = "X1_HE.jpg"\nspot_pitch_um = 200\n'
    )
    cohort = cohort_at(config, tile_px=56, mpp=2.0)
    assert (cohort.tile_px, cohort.mpp, cohort.samples[0].patient) == (32, 4.0, "P")


def test_a_section_without_its_image_is_named(section: Path) -> None:
    (section / "X1_HE.jpg").unlink()
    with pytest.raises(DataError, match=r"X1 has a spot file, but no image \(X1_HE\.jpg"):
        cohort_at(section, tile_px=56, mpp=2.0)


def test_a_folder_of_other_things_is_refused_as_no_cohort(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cohort"):
        cohort_at(tmp_path, tile_px=56, mpp=2.0)
