"""What attempts start from: sound slides, bundle and batch; they carry a patient's name wherever a file can."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pydicom
from support.bundle_factory import make_bundle
from support.position_slide import Layout, write_dicom
from support.slide_factory import texture, write_slide

PLANTED = "QZPLANTED"
"""Stands for a patient's name: in descriptions, DICOM attributes and folders. It may be in no output and no message."""
WARD = f"ward of {PLANTED}"
"""The folder that inputs lie in."""
TILE_PX = 64
MPP = 0.5
STORAGE_PX = 128
SIDE = (512, 640)
"""Height and width of the slides."""
CODINGS = ("420", "422", "444", "rgb")


@dataclass(frozen=True)
class World:
    """Sound inputs, kept in memory where they are small."""

    folder: Path
    slides: dict[str, bytes]
    dicom: bytes
    bundle: Path
    batch: Path

    def bundle_copy(self, folder: Path) -> Path:
        """A copy of the bundle in the ward."""
        return Path(shutil.copytree(self.bundle, folder / "bundle"))


def make_world(folder: Path) -> World:
    """Write everything below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    bundle = make_bundle(folder / "bundle", tile_px=TILE_PX, mpp=MPP, pathways=("HYPOXIA", "ANGIOGENESIS"))
    slides = {}
    for number, coding in enumerate(CODINGS):
        path = folder / f"{coding}.svs"
        write_slide(
            path,
            texture(*SIDE, seed=number),
            tile=STORAGE_PX,
            coding=coding,
            bigtiff=coding == "444",
            levels=(4,),
            more=f"|Patient = {PLANTED}",
        )
        slides[coding] = path.read_bytes()
    layout = Layout(columns=10, rows=8, tile_px=TILE_PX, target_mpp=MPP, mpp_x=MPP, mpp_y=MPP)
    image = pydicom.dcmread(write_dicom(folder / "image.dcm", layout))
    image.PatientName, image.PatientID = f"{PLANTED}^A", f"{PLANTED}-1"
    image.PatientComments = f"of {PLANTED}"
    image.save_as(folder / "image.dcm")
    return World(folder, slides, (folder / "image.dcm").read_bytes(), bundle, folder / "batch")


def new_slide(folder: Path, name: str, data: bytes) -> Path:
    """Write an input into the ward."""
    path = folder / WARD / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def infer(slide: Path, bundle: Path, out: Path, *more: str) -> tuple[str, ...]:
    """Arguments of a short infer; the scale is stated, so that damage to its record hides no other."""
    quick = ("--write", "json,hdf5,geojson", "--engine", "onnxruntime", "--threads", "2")
    return ("infer", str(slide), "--bundle", str(bundle), "-o", str(out), *quick, *more)
