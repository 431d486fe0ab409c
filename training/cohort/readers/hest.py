"""The layout of HEST-1k: st/ID.h5ad, wsis/ID.tif and metadata/ID.json, or one CSV of all samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stamp_deploy.errors import DataError
from stamp_deploy.tables import read_table

from .anndata_file import from_anndata, open_h5ad
from .base import RawSample, Settings

_PIXEL_KEYS = ("pixel_size_um_estimated", "pixel_size_um_embedded")


def read(settings: Settings) -> RawSample:
    """Read one sample of the layout; see docs/cohort.md for the keys.

    The estimated pixel size, which HEST derives from the array, outranks the one embedded in the image.

    Raises
    ------
    DataError
        A file of the sample is missing or damaged.
    """
    root = settings.path("folder")
    name = settings.text("hest_id", settings.sample)
    image = _image(root, name)
    metadata = _metadata(root, name)
    mpp, source = None, ""
    for key in _PIXEL_KEYS:
        try:
            value = float(metadata.get(key) or "nan")
        except (TypeError, ValueError):
            continue
        if 0 < value < 20:
            mpp, source = value, f"HEST metadata, {key}"
            break
    path = root / "st" / f"{name}.h5ad"
    if not path.is_file():
        raise DataError("does not exist", path=path, remedy="download the sample's st/ file")
    return from_anndata(
        open_h5ad(path),
        path,
        settings,
        image,
        mpp=mpp,
        mpp_source=source,
        platform=_text(metadata, "st_technology"),
        organ=_text(metadata, "organ"),
        patient_id=_patient(metadata),
    )


def _image(root: Path, name: str) -> Path:
    for suffix in (".tif", ".tiff", ".svs"):
        path = root / "wsis" / f"{name}{suffix}"
        if path.is_file():
            return path
    raise DataError(f"holds no wsis/{name}.tif", path=root, remedy="download the sample's image")


def _metadata(root: Path, name: str) -> dict[str, Any]:
    path = root / "metadata" / f"{name}.json"
    if path.is_file():
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot be read as JSON: {error}", path=path) from error
        return values if isinstance(values, dict) else {}
    for table in sorted(root.glob("HEST*.csv")):
        for row in read_table(table, error=DataError).rows:
            if row.get("id") == name:
                return dict(row)
    raise DataError(
        f"holds neither metadata/{name}.json nor a HEST*.csv that lists {name}",
        path=root,
        remedy="download the metadata too: it states the pixel size and the patient",
    )


def _text(metadata: dict[str, Any], key: str) -> str:
    value = metadata.get(key)
    return "" if value is None or value != value else str(value).strip()


def _patient(metadata: dict[str, Any]) -> str:
    """Patients are numbered within a study, so the study's title goes into the id."""
    patient = _text(metadata, "patient")
    if not patient:
        return ""
    study = _text(metadata, "dataset_title")
    if not study:
        return patient
    import hashlib

    return f"{hashlib.sha256(study.encode()).hexdigest()[:8]}-{patient}"
