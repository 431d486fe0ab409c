"""Slides of other scanners out of the JPEG streams of a tiled TIFF, so that OpenSlide opens them, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from .dicom_factory import How, Picture, write_level
from .slide_factory import encode

SCN = "http://www.leica-microsystems.com/scn/2010/10/01"


@dataclass(frozen=True)
class Page:
    """A level as it is coded: streams row by row, tables that they share, the colour tag and subsampling."""

    width: int
    height: int
    side: int
    streams: Sequence[bytes]
    tables: bytes
    photometric: int
    subsampling: tuple[int, int]

    @property
    def whole_streams(self) -> list[bytes]:
        """The streams with their tables."""
        return [self.tables[:-2] + stream[2:] if self.tables else stream for stream in self.streams]

    @property
    def picture(self) -> Picture:
        """The level as a DICOM file has it."""
        return Picture(self.width, self.height, self.side, self.whole_streams)


def pages_of(path: Path) -> list[Page]:
    """The tiled pages of a TIFF of JPEG storage tiles, finest first."""
    data, found = path.read_bytes(), []
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            assert isinstance(page, tifffile.TiffPage)
            if page.is_tiled:
                places = zip(page.dataoffsets, page.databytecounts, strict=True)
                found.append(
                    Page(
                        page.imagewidth, page.imagelength, page.tilewidth,
                        [data[offset : offset + size] for offset, size in places], bytes(page.jpegtables or b""),
                        int(page.photometric), page.subsampling or (1, 1),
                    )
                )  # fmt: skip
    return found


def halved(page: Page, quality: int = 90) -> Page:
    """The next level of a pyramid by 2: four storage tiles averaged to one, as 4:2:0; equal ones are coded once."""
    columns, rows = page.width // page.side // 2, page.height // page.side // 2
    across = -(-page.width // page.side)
    streams, made = page.whole_streams, dict[tuple[bytes, ...], bytes]()
    found = []
    for row in range(0, 2 * rows, 2):
        for column in range(0, 2 * columns, 2):
            four = tuple(streams[(row + y) * across + column + x] for y in (0, 1) for x in (0, 1))
            if four not in made:
                a, b, c, d = (imagecodecs.jpeg8_decode(stream).astype(np.uint16) for stream in four)
                whole = np.concatenate([np.concatenate([a, b], 1), np.concatenate([c, d], 1)])
                blocks = whole.reshape(page.side, 2, page.side, 2, 3).sum((1, 3))
                made[four] = encode(((blocks + 2) // 4).astype(np.uint8), "420", quality)
            found.append(made[four])
    return Page(columns * page.side, rows * page.side, page.side, found, b"", 6, (2, 2))


def write_page(writer: tifffile.TiffWriter, page: Page, *, padded: bool = False, **options: object) -> None:
    """One page, its size as it is or padded to whole storage tiles."""
    width, height = page.width, page.height
    if padded:
        width, height = (-(-side // page.side) * page.side for side in (width, height))
    given = {"metadata": None, **options}
    writer.write(
        iter(page.streams), shape=(height, width, 3), dtype=np.uint8, tile=(page.side, page.side), compression="jpeg",
        photometric="ycbcr", subsampling=page.subsampling, jpegtables=page.tables or None, **given,
    )  # fmt: skip


def set_colours(path: Path, tags: Sequence[int | None]) -> None:
    """The colour tag of each page; tifffile writes streams that are given as YCbCr."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for page, tag in zip(tiff.pages, tags, strict=True):
            if tag is not None:
                page.tags["PhotometricInterpretation"].overwrite(tag)


def write_dicom(folder: Path, pages: Sequence[Page], *, mpp: float = 0.5) -> Path:
    """A series of one instance a level; the file of level 0."""
    folder.mkdir(exist_ok=True)
    written = []
    for number, page in enumerate(pages):
        how = How(
            table="extended",
            photometric="RGB" if page.photometric == 2 else "YBR_FULL_422",
            image_type=("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED" if number else "NONE"),
        )
        scale = pages[0].width / page.width
        written += write_level(folder / f"level-{number}.dcm", page.picture, how, mpp=mpp * scale)
    return written[0]


OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{width}" SizeY="{height}" '
    'SizeZ="1" SizeC="3" SizeT="1" PhysicalSizeX="{mpp}" PhysicalSizeY="{mpp}"><Channel ID="Channel:0:0" '
    'SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
)


def ome_of(page: Page, *, mpp: float = 0.5) -> str:
    """The OME-XML of a slide whose first page is this one."""
    return OME.format(width=page.width, height=page.height, mpp=mpp)


def write_sub_pages(path: Path, pages: Sequence[Page], *, mpp: float | None = 0.5, description: str = "") -> Path:
    """A TIFF whose levels lie inside of its first page, as OME-TIFF has them."""
    said: dict[str, object] = {"description": description.encode()} if description else {}
    if mpp is not None:
        said.update(resolution=(10_000 / mpp, 10_000 / mpp), resolutionunit=3)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        first, *others = pages
        write_page(writer, first, subifds=len(others), **said)
        for page in others:
            write_page(writer, page, subfiletype=1)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for page, inside in zip(pages, [tiff.pages[0], *(tiff.pages[0].pages or ())], strict=True):
            inside.aspage().tags["PhotometricInterpretation"].overwrite(page.photometric)
    return path


def write_pyramid(
    path: Path,
    pages: Sequence[Page],
    *,
    mpp: float = 0.5,
    descriptions: Sequence[str] = (),
    are_reduced: bool = True,
) -> Path:
    """A plain TIFF of one page a level, in the order that is given, as COG and QPTIFF have them.

    Parameters
    ----------
    mpp : float
        Of the first page, which alone states it.
    descriptions : sequence of str, optional
        Of each page.
    are_reduced : bool
        Whether all pages but the first say that they are reduced.
    """
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for number, page in enumerate(pages):
            first = {"resolution": (10_000 / mpp, 10_000 / mpp), "resolutionunit": 3}
            said: dict[str, object] = first if number == 0 else {"subfiletype": int(are_reduced)}
            if descriptions:
                said["description"] = descriptions[number]
            write_page(writer, page, **said)
    return path


QPI = (
    '<?xml version="1.0"?><PerkinElmer-QPI-ImageDescription><ImageType>{kind}</ImageType>'
    "</PerkinElmer-QPI-ImageDescription>"
)
"""What a page of a QPTIFF says of itself."""


PHILIPS = """<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">
<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" PMSVR="IDataObjectArray"><Array>
<DataObject ObjectType="DPScannedImage">
<Attribute Name="PIM_DP_IMAGE_TYPE" Group="0x301D" Element="0x1004" PMSVR="IString">WSI</Attribute>
<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001" Element="0x8B01" PMSVR="IDataObjectArray">
<Array>{levels}</Array></Attribute>
<Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" PMSVR="IDoubleArray">"{mm}" "{mm}"</Attribute>
</DataObject></Array></Attribute></DataObject>"""
PHILIPS_LEVEL = """<DataObject ObjectType="PixelDataRepresentation">
<Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" PMSVR="IDoubleArray">"{mm}" "{mm}"</Attribute>
</DataObject>"""


def write_philips(path: Path, pages: Sequence[Page], *, mpp: float = 0.5) -> Path:
    """A Philips TIFF: pages padded to whole storage tiles, the downsamples in XML."""
    scales = [round(pages[0].width / page.width) for page in pages]
    levels = "".join(PHILIPS_LEVEL.format(mm=mpp / 1000 * scale) for scale in scales)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for number, page in enumerate(pages):
            first = {"description": PHILIPS.format(levels=levels, mm=mpp / 1000), "software": "Philips DP v1.0"}
            write_page(writer, page, padded=True, **(first if number == 0 else {"subfiletype": 1}))
    set_colours(path, [page.photometric for page in pages])
    return path


def write_scn(
    path: Path,
    areas: Sequence[tuple[int, int, Sequence[Page]]],
    *,
    size: tuple[int, int],
    mpp: float = 0.5,
    light: str = "brightfield",
) -> Path:
    """A Leica SCN of areas (x, y, pages) on a glass of `size`, level-0 pixels; with a picture of the whole glass."""
    nm, first = round(mpp * 1000), 1
    images = [_scn_image("macro", [(0, 64, 64)], (*size, 0, 0), nm, light)]
    for number, (x, y, pages) in enumerate(areas):
        dimensions = [(first + i, page.width, page.height) for i, page in enumerate(pages)]
        images.append(_scn_image(f"area-{number}", dimensions, (pages[0].width, pages[0].height, x, y), nm, light))
        first += len(pages)
    xml = (
        f'<?xml version="1.0"?><scn xmlns="{SCN}" uuid="urn:uuid:0"><collection name="c" uuid="urn:uuid:1" '
        f'sizeX="{size[0] * nm}" sizeY="{size[1] * nm}"><barcode>x</barcode>{"".join(images)}</collection></scn>'
    )
    per_cm = 10_000 / mpp
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        glass = np.full((64, 64, 3), 240, np.uint8)
        writer.write(glass, description=xml, photometric="rgb", tile=(64, 64), compression="jpeg", metadata=None)
        for _, _, pages in areas:
            for page in pages:
                write_page(writer, page, resolution=(per_cm, per_cm), resolutionunit=3)
    set_colours(path, [None, *(page.photometric for _, _, pages in areas for page in pages)])
    return path


def _scn_image(
    name: str, dimensions: Sequence[tuple[int, int, int]], view: tuple[int, int, int, int], nm: int, light: str
) -> str:
    listed = "".join(
        f'<dimension sizeX="{w}" sizeY="{h}" r="{r}" ifd="{ifd}"/>' for r, (ifd, w, h) in enumerate(dimensions)
    )
    width, height, x, y = (side * nm for side in view)
    return (
        f'<image name="{name}" uuid="urn:uuid:{name}"><creationDate>2020-01-01T00:00:00Z</creationDate>'
        f'<device model="Leica SCN400" version="1.4"/><pixels sizeX="{dimensions[0][1]}" sizeY="{dimensions[0][2]}">'
        f'{listed}</pixels><view sizeX="{width}" sizeY="{height}" offsetX="{x}" offsetY="{y}"/><scanSettings>'
        "<objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>"
        f"<numericalAperture>0.4</numericalAperture><illuminationSource>{light}</illuminationSource>"
        "</illuminationSettings></scanSettings></image>"
    )
