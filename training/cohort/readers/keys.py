"""What may be said of a sample in the config of `cohort build`: the keys of every sample, and those of each format."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from ...toml_settings import TomlSettings, setting

Name = Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, int) and not isinstance(v, bool) else v)]
"""A name; a whole number is taken as its digits."""
Length = float | None


class SampleKeys(TomlSettings):
    """The keys of every sample."""

    noun: ClassVar[str] = "key"

    id: Name = setting(..., "letters, digits, . _ and -; once")
    format: str = setting(..., "what the sample's files are")
    patient_id: Name = setting("", "whose tissue it is; folds never part a patient")
    organ: str = setting("", "outranks what the files state")
    platform: str = setting("", "outranks what the files state")
    mpp: Length = setting(None, "microns per pixel of the image at full resolution", gt=0)
    mpp_overrides: bool = setting(False, "mpp stands although other evidence disagrees")
    allow_fractions: bool = setting(False, "counts need not be whole numbers (deconvolved, say)")
    outside: Literal["refuse", "drop"] = setting("refuse", "or drop: spots whose centre is not in the image")
    genome: str = setting("", "whose genes to take where names carry several; the human one by default")


class LegacyKeys(SampleKeys):
    """Spatial Transcriptomics before Visium."""

    counts: str = setting("", "TSV, rows named XxY")
    spots: str = setting("", "table with x, y, pixel_x, pixel_y")
    image: str = setting("", "the full image")
    spot_pitch_um: Length = setting(None, "distance of the spots, for the resolution", gt=0)


class VisiumKeys(SampleKeys):
    """Space Ranger's results."""

    folder: str = setting("", "outs: a matrix as .h5 or folder, and spatial/")
    counts: str = setting("", "another matrix")
    image: str = setting("", "the full image, as it was given to Space Ranger")
    image_level: Literal["full", "hires", "lowres"] = setting("full", "or a small picture of spatial/")


class VisiumHdKeys(SampleKeys):
    """Bins of Visium HD."""

    folder: str = setting("", "one of binned_outputs, such as square_008um")
    image: str = setting("", "the full image")
    pool_um: Length = setting(None, "side of the squares that bins are summed into", gt=0)
    min_bins: int | None = setting(None, "squares with fewer are left out", gt=0)


class XeniumKeys(SampleKeys):
    """Cells of Xenium."""

    folder: str = setting("", "cell_feature_matrix, cells.parquet or .csv.gz, experiment.xenium")
    image: str = setting("", "the stained image")
    pool_um: Length = setting(None, "side of the squares that cells are summed into", gt=0)
    alignment: str = setting("", 'exported by Xenium Explorer, or "identity"')
    pixel_size_um: Length = setting(None, "of the morphology image, where experiment.xenium is not there", gt=0)
    min_cells: int | None = setting(None, "squares with fewer are left out", gt=0)


class AnnDataKeys(SampleKeys):
    """Any AnnData file."""

    counts: str = setting("", '.h5ad with obsm["spatial"]')
    image: str = setting("", "the full image")
    layer: str = setting("", "where the raw counts are, if not in X")
    gene_column: str = setting("", "column of var with the symbols")
    coordinates: Literal["", "px", "um"] = setting("", 'the unit of obsm["spatial"]: pixels of the image, or microns')


class HestKeys(SampleKeys):
    """The layout of HEST-1k."""

    folder: str = setting("", "st/, wsis/ and metadata/")
    hest_id: Name = setting("", "by default the sample's id")
    layer: str = setting("", "where the raw counts are, if not in X")
    gene_column: str = setting("", "column of var with the symbols")
    coordinates: Literal["", "px", "um"] = setting("", 'the unit of obsm["spatial"]')


KEYS_OF_FORMAT: dict[str, type[SampleKeys]] = {
    "legacy-st": LegacyKeys,
    "visium": VisiumKeys,
    "visium-hd": VisiumHdKeys,
    "xenium": XeniumKeys,
    "hest": HestKeys,
    "anndata": AnnDataKeys,
}
"""Name of a format -> the keys of its samples."""
