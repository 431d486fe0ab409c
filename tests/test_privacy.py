"""What stands in a slide's file stays there: a planted name is looked for in everything that a run leaves.

Broken and sound files of every reader hold the name in every place that takes text. The command, the batch with its
workers and logs, and the Python interface read them; standard output, standard error and every file are searched.
DICOM results name the patient on purpose (docs/writers.md), and are left out.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin
from support.bundle_factory import make_bundle
from support.slide_factory import texture, write_slide

NAME = "Mustermann"
BORN = "19031224"
WRITERS = "json,hdf5,parquet,heatmaps,report,geojson,ome-tiff"
API = """
import sys
from pathlib import Path
from stamp_deploy.bundle import load_bundle
from stamp_deploy.config import InferOptions
from stamp_deploy.errors import StampError
from stamp_deploy.infer import infer_slide
bundle, out = load_bundle(sys.argv[1]), Path(sys.argv[2])
for number, slide in enumerate(sys.argv[3:]):
    try:
        infer_slide(Path(slide), bundle, out / str(number), InferOptions(engine="onnxruntime", writers=("json",)))
    except StampError as error:
        print(error)
"""


def tiff(path: Path, description: bytes, **more: object) -> None:
    """A tiled JPEG TIFF of 0.5 um/px with a name in every text field of its first directory."""
    texts = [(tag, 2, 0, f"{NAME} {BORN}\xdf".encode("latin-1"), True) for tag in (269, 271, 272, 285, 315, 316, 33432)]
    tifffile.imwrite(
        path,
        texture(512, 512),
        description=description,
        resolution=(20000, 20000),
        resolutionunit=3,
        photometric="rgb",
        tile=(256, 256),
        compression="jpeg",
        metadata=None,
        extratags=texts,
        **more,  # type: ignore[arg-type]
    )


def png(path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Description", f"{NAME} {BORN}")
    Image.fromarray(texture(256, 256)).save(path, pnginfo=text)


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of slides, sound and broken, that name a patient."""
    folder = tmp_path_factory.mktemp("slides")
    aperio = b"Aperio Image Library v12\r\n512x512 (256x256)|AppMag = 20|MPP = 0.5|"
    tiff(folder / "plain.tif", f"{NAME} {BORN}".encode())
    tiff(folder / "bytes.tif", f"{NAME} \x8d {BORN}".encode("latin-1"))
    tiff(folder / "aperio.svs", aperio + f"Patient = {NAME}|User = M\xfcller {NAME}".encode("latin-1"))
    tiff(folder / "fields.svs", aperio.replace(b"0.5", f"0.5 {NAME}".encode()).replace(b"20|", f"{NAME}|".encode()))
    tiff(folder / "ome.ome.tif", f'<?xml version="1.0"?><OME><Image Name="{NAME}"><{NAME}/></Image>'.encode())
    tiff(folder / "entity.ome.tif", f'<OME xmlns="x"><Image Name="{NAME}">&{NAME};</{BORN}></OME>'.encode())
    tiff(folder / "cut.svs", aperio + NAME.encode())
    cut(folder / "cut.svs", 2000)
    write_slide(folder / "head.svs", texture(512, 512), mpp=None, more=f"|MPP = {NAME}|AppMag = {BORN}")
    png(folder / "named.tif")  # a picture under a slide's ending
    png(folder / "cut.jp2")
    cut(folder / "cut.jp2", 5000)
    Image.fromarray(texture(256, 256)).save(folder / "comment.jp2", "JPEG", comment=f"{NAME} {BORN}")
    (folder / "folder").mkdir()
    (folder / "folder" / "Slidedat.ini").write_text(f"[GENERAL]\n{NAME} {BORN}\nSLIDE_ID = {NAME}\n")
    (folder / "folder.mrxs").write_bytes(b"x")
    (folder / "hamamatsu.vms").write_text(f"[Virtual Microscope Specimen]\n{NAME}\nNoLayers={NAME}\n")
    (folder / "text.svs").write_text(f"{NAME} {BORN}\n")
    (folder / "zarr.czi").write_bytes(b"ZISRAWFILE" + NAME.encode() * 100)
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + f"{NAME} {BORN}".encode() * 20)
    return folder


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A DICOM slide with a name in text fields and a birth date that is none."""
    pydicom = pytest.importorskip("pydicom")
    slide = tmp_path_factory.mktemp("dicom") / "slide.dcm"
    header = pydicom.dcmread(data_dir / "dicom" / "highdicom_sm_image.dcm")
    header.PatientName, header.ImageComments = NAME, NAME
    tag = header.data_element("PatientBirthDate").tag
    header[tag] = pydicom.DataElement(tag, "LO", f"{NAME} {BORN}")
    header.save_as(slide)
    return slide


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "bundle"
    make_bundle(folder, tile_px=64)
    return folder


def run(*words: object) -> str:
    """What a program writes to standard output and error, whatever becomes of it."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "always"},
    )
    assert done.returncode in (0, 2, 3, 4, 5, 6), done
    return (done.stdout + done.stderr).decode(errors="replace")


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name != "dicom":
            data = path.read_bytes()
            yield str(path.relative_to(folder)), gzip.decompress(data) if path.suffix == ".gz" else data


def leaks(said: str, folder: Path) -> list[str]:
    """Where the name or the date of birth turned up, in one encoding or another."""
    everything = [("standard output or error", said.encode()), *contents(folder)]
    words = [word.encode(code) for word in (NAME, BORN, NAME[:6]) for code in ("utf-8", "utf-16-le", "utf-32-le")]
    return [place for place, data in everything if any(word in data for word in words)]


SLIDES = (
    "plain.tif bytes.tif aperio.svs fields.svs ome.ome.tif entity.ome.tif cut.svs head.svs named.tif cut.jp2 "
    "comment.jp2 folder.mrxs hamamatsu.vms text.svs zarr.czi broken.dcm"
)


@pytest.mark.parametrize("name", SLIDES.split())
def test_the_command_keeps_the_name(files: Path, bundle: Path, tmp_path: Path, name: str) -> None:
    words = ["-m", "stamp_deploy.cli", "--log-level", "debug", "infer", files / name, "--bundle", bundle]
    said = run(*words, "-o", tmp_path / "out", "--write", WRITERS, "--engine", "onnxruntime")
    assert leaks(said, tmp_path) == []
    assert said.strip()


def test_a_look_keeps_the_name(files: Path, tmp_path: Path) -> None:
    for name in ("bytes.tif", "fields.svs", "entity.ome.tif"):
        said = run("-m", "stamp_deploy.cli", "inspect", files / name)
        assert leaks(said, tmp_path) == [], name


def test_a_batch_keeps_the_name(files: Path, bundle: Path, tmp_path: Path) -> None:
    words = ["-m", "stamp_deploy.cli", "--log-level", "debug", "batch", files, "--bundle", bundle]
    said = run(*words, "-o", tmp_path / "out", "--write", WRITERS, "--engine", "onnxruntime")
    assert leaks(said, tmp_path) == []
    logs = list((tmp_path / "out" / ".stamp").glob("*.log"))
    assert len(logs) >= 2
    assert (tmp_path / "out" / ".stamp").is_dir()


def test_python_keeps_the_name(files: Path, bundle: Path, tmp_path: Path) -> None:
    """In a process of the user's own, where nothing is done to the streams."""
    said = run("-c", API, bundle, tmp_path, *(files / name for name in SLIDES.split()))
    assert leaks(said, tmp_path) == []


@pytest.mark.parametrize("formats", ["json", "dicom-sr"])
def test_dicom_keeps_the_name(dicom: Path, bundle: Path, tmp_path: Path, formats: str) -> None:
    for verb in ("infer", "batch"):
        words = ["-m", "stamp_deploy.cli", verb, dicom, "--bundle", bundle, "-o", tmp_path / verb, "--all-tiles"]
        said = run(*words, "--write", formats, "--engine", "onnxruntime")
        assert leaks(said, tmp_path) == [], said


def test_folders_are_not_told(bundle: Path, tmp_path: Path) -> None:
    """A folder can be called like a patient: neither click's messages nor ours spell it."""
    slides = tmp_path / NAME
    slides.mkdir()
    (slides / "x.svs").write_bytes(b"x")
    for words in (
        ("infer", slides / "x.svs", slides / "more", "--bundle", bundle, "-o", tmp_path / "out"),
        ("infer", slides / "x.svs", "--bundle", bundle, "-o", tmp_path / "out", f"--batch={slides}/many"),
        ("infer", slides / "none.svs", "--bundle", slides / "none", "-o", slides / "out"),
        ("infer", slides / "x.svs", "--bundle", bundle, "-o", slides / "x.svs" / "out"),
        ("verify", slides / "none"),
        ("inspect", slides / "x.svs"),
        (f"{slides}/verb",),
    ):
        said = run("-m", "stamp_deploy.cli", *words)
        assert NAME not in said, words


def test_names_without_glyphs_stay_out_of_logs(bundle: Path, tmp_path: Path) -> None:
    """Matplotlib spells what it has no glyph for in a warning."""
    name = "\u60a3\u8005\u592a\u90ce"
    slides = tmp_path / "slides"
    slides.mkdir()
    write_slide(slides / f"{name}.svs", np.asarray(texture(512, 512)))
    words = ["-m", "stamp_deploy.cli", "batch", slides, "--bundle", bundle, "-o", tmp_path / "out"]
    run(*words, "--write", "heatmaps,report", "--engine", "onnxruntime")
    assert list((tmp_path / "out").glob("*/overview.png"))
    for log in (tmp_path / "out" / ".stamp").glob("*.log"):
        text = log.read_text()
        assert not any(letter in text or f"{ord(letter):X}" in text or str(ord(letter)) in text for letter in name)
