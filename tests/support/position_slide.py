"""Slides whose tiles say where they lie: each tile's colour encodes its column and its row.

A bundle of `position_bundle` reads the colour back as pathway scores, so that a score that has moved from its place is
seen in whatever file it stands. Expected values are worked out here from the drawing, never by the code under test.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import tifffile
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, generate_uid

from .bundle_factory import DIM, MEAN, POOL, STD, make_bundle
from .slide_factory import tiles_of

PATHWAYS = ("RED", "GREEN", "BLUE")
STORAGE_PX = 128


@dataclass(frozen=True)
class Layout:
    """A slide of `columns` x `rows` whole tiles.

    Attributes
    ----------
    mpp_x, mpp_y : float
        Microns per level-0 pixel; they differ, so that a swap of the two is seen.
    glass_columns : int
        Columns on the left that are white.
    """

    columns: int = 26
    rows: int = 12
    tile_px: int = 32
    target_mpp: float = 0.5
    mpp_x: float = 0.25
    mpp_y: float = 0.27
    glass_columns: int = 0

    @property
    def span(self) -> tuple[float, float]:
        """Level-0 pixels of a tile in x and y."""
        side_um = self.tile_px * self.target_mpp
        return side_um / self.mpp_x, side_um / self.mpp_y

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, level-0 pixels."""
        return round(self.columns * self.span[0]), round(self.rows * self.span[1])

    def colours(self) -> NDArray[np.float64]:
        """RGB of every tile, float64 [rows, columns, 3]: pink to violet, so that it counts as stained tissue."""
        row, column = np.indices((self.rows, self.columns))
        rgb = np.stack([150 + 8 * (column % 13), 20 + 8 * row, 150 + 50 * (column // 13 % 2)], axis=-1).astype(float)
        rgb[:, : self.glass_columns] = 244
        return rgb

    def picture(self) -> NDArray[np.uint8]:
        """The slide, uint8 [height, width, 3]."""
        width, height = self.size
        column = np.minimum(((np.arange(width) + 0.5) / self.span[0]).astype(int), self.columns - 1)
        row = np.minimum(((np.arange(height) + 0.5) / self.span[1]).astype(int), self.rows - 1)
        return self.colours().astype(np.uint8)[row][:, column]

    def scores(self) -> NDArray[np.float64]:
        """What the pathways must say of every tile: the colour, normalised; float64 [rows, columns, 3]."""
        scores: NDArray[np.float64] = (self.colours() / 255 - np.array(MEAN)) / np.array(STD)
        return scores

    def corners(self) -> NDArray[np.int64]:
        """Top-left corner (x, y) of every tile, level-0 pixels: int64 [rows, columns, 2]."""
        x, y = np.meshgrid(np.arange(self.columns) * self.span[0], np.arange(self.rows) * self.span[1])
        return np.rint(np.stack([x, y], axis=-1)).astype(np.int64)


def position_bundle(path: Path, layout: Layout) -> Path:
    """A bundle whose pathways RED, GREEN and BLUE, and first embeddings, are the tile's normalised mean colour."""
    project = np.zeros((3 * POOL * POOL, DIM), np.float32)
    for channel in range(3):
        project[channel * POOL * POOL : (channel + 1) * POOL * POOL, channel] = 1 / (POOL * POOL)
    weights = {"project": project, "score": np.eye(DIM, 3, dtype=np.float32)}
    return make_bundle(path, layout.tile_px, layout.target_mpp, PATHWAYS, weights=weights)


def write_tiff(
    path: Path,
    layout: Layout,
    coding: str,
    levels: tuple[int, ...] = (),
    picture: NDArray[np.uint8] | None = None,
) -> Path:
    """A tiled or stripped TIFF that states its resolution in x and y.

    `coding` is "jpeg-rgb", "jpeg-420", "deflate", "packbits" (tiled) or "strips" (deflate, not tiled). `levels` are
    further levels, by their downsample; `picture` replaces the layout's own.
    """
    picture = layout.picture() if picture is None else picture
    per_cm = 1e4 / layout.mpp_x, 1e4 / layout.mpp_y
    common = {"resolutionunit": "CENTIMETER", "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        for scale in (1, *levels):
            image = np.ascontiguousarray(picture[scale // 2 :: scale, scale // 2 :: scale])
            resolution = (per_cm[0] / scale, per_cm[1] / scale)
            reduced = {"subfiletype": int(scale > 1)}
            if coding == "strips":
                writer.write(image, compression="zlib", rowsperstrip=16, resolution=resolution, **common, **reduced)
            elif coding in ("deflate", "packbits"):
                tile, compression = (STORAGE_PX, STORAGE_PX), "zlib" if coding == "deflate" else coding
                writer.write(image, compression=compression, tile=tile, resolution=resolution, **common, **reduced)
            else:
                writer.write(
                    iter([_jpeg(part, coding) for part in tiles_of(image, STORAGE_PX)]),
                    shape=image.shape,
                    dtype=np.uint8,
                    tile=(STORAGE_PX, STORAGE_PX),
                    compression="jpeg",
                    photometric="ycbcr",
                    subsampling=(2, 2) if coding == "jpeg-420" else (1, 1),
                    resolution=resolution,
                    **common,
                    **reduced,
                )
    if coding == "jpeg-rgb":
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            for page in tiff.pages:
                page.tags["PhotometricInterpretation"].overwrite(2)
    return path


def _jpeg(part: NDArray[np.uint8], coding: str) -> bytes:
    if coding == "jpeg-rgb":
        return bytes(imagecodecs.jpeg_encode(part, level=98, colorspace="RGB", outcolorspace="RGB"))
    return bytes(imagecodecs.jpeg_encode(part, level=98, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"))


ORIGIN_MM = (12.5, 31.25, 0.0)
ORIENTATION = (0.0, -1.0, 0.0, -1.0, 0.0, 0.0)
"""Columns run along -y of the glass and rows along -x, as scanners place them."""
THICKNESS_MM = 0.003


def write_dicom(path: Path, layout: Layout) -> Path:
    """A DICOM whole-slide image of one level, TILED_FULL, JPEG 4:2:0, with its place on the glass."""
    picture = layout.picture()
    frames = [_jpeg(part, "jpeg-420") for part in tiles_of(picture, STORAGE_PX)]
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["position", "sop"])
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    slide = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    slide.SOPClassUID, slide.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    slide.StudyInstanceUID = generate_uid(entropy_srcs=["position", "study"])
    slide.SeriesInstanceUID = generate_uid(entropy_srcs=["position", "series"])
    slide.FrameOfReferenceUID = generate_uid(entropy_srcs=["position", "frame"])
    slide.PositionReferenceIndicator = "SLIDE_CORNER"
    slide.Modality, slide.SeriesNumber, slide.InstanceNumber = "SM", 1, 1
    slide.Manufacturer, slide.ManufacturerModelName = "Maker", "Model"
    slide.DeviceSerialNumber, slide.SoftwareVersions = "1", "1"
    slide.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    slide.AcquisitionDateTime = slide.ContentDate = "20260101"
    slide.ContentTime = "120000"
    slide.VolumetricProperties, slide.SpecimenLabelInImage, slide.BurnedInAnnotation = "VOLUME", "NO", "NO"
    slide.FocusMethod, slide.ExtendedDepthOfField = "AUTO", "NO"
    slide.ContainerIdentifier = "CONTAINER"
    slide.Rows = slide.Columns = STORAGE_PX
    slide.TotalPixelMatrixColumns, slide.TotalPixelMatrixRows = layout.size
    slide.TotalPixelMatrixFocalPlanes = slide.NumberOfOpticalPaths = 1
    slide.ImagedVolumeWidth = layout.size[0] * layout.mpp_x / 1000
    slide.ImagedVolumeHeight = layout.size[1] * layout.mpp_y / 1000
    slide.ImagedVolumeDepth = THICKNESS_MM
    slide.ImageOrientationSlide = list(ORIENTATION)
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = ORIGIN_MM[:2]
    slide.TotalPixelMatrixOriginSequence = [origin]
    slide.DimensionOrganizationType = "TILED_FULL"
    organization = Dataset()
    organization.DimensionOrganizationUID = generate_uid(entropy_srcs=["position", "dimensions"])
    slide.DimensionOrganizationSequence = [organization]
    slide.SamplesPerPixel, slide.PhotometricInterpretation, slide.PlanarConfiguration = 3, "YBR_FULL_422", 0
    slide.BitsAllocated = slide.BitsStored = 8
    slide.HighBit, slide.PixelRepresentation = 7, 0
    slide.LossyImageCompression, slide.LossyImageCompressionMethod = "01", "ISO_10918_1"
    slide.LossyImageCompressionRatio = 10
    slide.NumberOfFrames = len(frames)
    measures, groups = Dataset(), Dataset()
    measures.PixelSpacing = [layout.mpp_y / 1000, layout.mpp_x / 1000]
    measures.SliceThickness = THICKNESS_MM
    groups.PixelMeasuresSequence = [measures]
    slide.SharedFunctionalGroupsSequence = [groups]
    path_item, illumination = Dataset(), Dataset()
    illumination.CodeValue, illumination.CodingSchemeDesignator = "111744", "DCM"
    illumination.CodeMeaning = "Brightfield illumination"
    path_item.OpticalPathIdentifier = "1"
    path_item.IlluminationTypeCodeSequence = [illumination]
    slide.OpticalPathSequence = [path_item]
    slide.PixelData = encapsulate(frames, has_bot=True)
    slide["PixelData"].VR = "OB"
    slide["PixelData"].is_undefined_length = True
    slide.save_as(path, enforce_file_format=True)
    return path
