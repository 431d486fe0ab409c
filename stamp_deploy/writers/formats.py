"""Which output formats there are: a table that costs nothing to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """One output format.

    Attributes
    ----------
    module : str
        Module of this package that writes it.
    files : str
        What appears in the result folder.
    opened_with : str
        What reads those files.
    extra : str
        Extra of the distribution that installs its libraries; empty for the base install.
    needs_slide : bool
        It reads the slide's own headers again, so that `stamp-deploy render` wants the slide, too.
    tells_time : bool
        It holds the run's timings, and is written when the other formats are.
    """

    module: str
    files: str
    opened_with: str
    extra: str = ""
    needs_slide: bool = False
    tells_time: bool = False


FORMATS: dict[str, Format] = {
    "json": Format("result_json", "result.json", "anything", tells_time=True),
    "hdf5": Format("hdf5", "tiles.h5", "h5py, CLAM, TRIDENT"),
    "parquet": Format("parquet", "tiles.parquet", "pandas, polars, DuckDB, R arrow"),
    "heatmaps": Format("heatmaps", "maps/<pathway>.png, overview.png", "any picture viewer"),
    "report": Format("report_html", "report.html", "any browser, offline", tells_time=True),
    "summaries": Format("summary_table", "summaries.csv", "Excel, R, pandas"),
    "geojson": Format("geojson", "tiles.geojson[.gz]", "QuPath, GIS tools"),
    "tissue-geojson": Format("tissue_geojson", "tissue.geojson", "QuPath; --tissue-mask takes it back"),
    "ome-tiff": Format("ome_tiff", "maps.ome.tiff", "QuPath, Fiji, tifffile", "formats"),
    "anndata": Format("anndata", "tiles.h5ad", "scanpy, squidpy", "formats"),
    "spatialdata": Format("spatialdata", "slide.zarr/", "spatialdata, squidpy, napari", "spatialdata"),
    "dicom-pmap": Format("dicom_pmap", "dicom/map-<number>.dcm", "DICOM viewers and archives", "formats", True),
    "dicom-seg": Format("dicom_seg", "dicom/tiles-seg.dcm", "DICOM viewers and archives", "formats", True),
    "dicom-sr": Format("dicom_sr", "dicom/calls-sr.dcm", "DICOM viewers and archives", "formats", True),
}
"""By the name that --write takes."""
