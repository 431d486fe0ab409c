"""What the standard asks of a whole-slide image beside its picture: patient, study, equipment, specimen, glass.

`dciodvfy` finds no error in such a header, and strict readers (wsidicom) take it.
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

THICKNESS_MM = 0.004
BREADTH_MM = 25.0
"""Of the glass: where level 0 begins, counted from its corner."""


def srgb_profile() -> bytes:
    """An ICC profile, which colour images must have."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile + b"\0" * (len(profile) % 2)


def code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    """An item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def set_origin(data: Dataset, series: str) -> None:
    """Whose slide it is, and what scanned it. All instances of a series agree."""
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "Doe^Jane", "P-1", "19500101", "F"
    data.StudyInstanceUID = generate_uid(entropy_srcs=[series, "study"])
    data.StudyDate = data.ContentDate = "20260101"
    data.StudyTime = data.ContentTime = "120000"
    data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "1", "A-1", ""
    data.SeriesInstanceUID, data.SeriesNumber = generate_uid(entropy_srcs=[series]), 1
    data.FrameOfReferenceUID = generate_uid(entropy_srcs=[series, "frame of reference"])
    data.PositionReferenceIndicator = "SLIDE_CORNER"
    data.Manufacturer, data.ManufacturerModelName = "Maker", "Model"
    data.DeviceSerialNumber, data.SoftwareVersions = "1", "1"
    data.AcquisitionDateTime = "20260101120000"
    data.AcquisitionContextSequence = []


def set_specimen(data: Dataset, series: str) -> None:
    """The glass, and the section on it."""
    data.ContainerIdentifier, data.IssuerOfTheContainerIdentifierSequence = "CONTAINER", []
    data.ContainerTypeCodeSequence = [code("433466003", "Microscope slide", "SCT")]
    specimen = Dataset()
    specimen.SpecimenIdentifier = "SPECIMEN"
    specimen.SpecimenUID = generate_uid(entropy_srcs=[series, "specimen"])
    specimen.IssuerOfTheSpecimenIdentifierSequence, specimen.SpecimenPreparationSequence = [], []
    data.SpecimenDescriptionSequence = [specimen]


def set_place(data: Dataset, width: int, height: int, mpp: float, series: str) -> None:
    """How large the picture is, and where it lies: its columns run along -y of the glass, its rows along -x."""
    data.ImagedVolumeWidth, data.ImagedVolumeHeight = width * mpp / 1000, height * mpp / 1000
    data.ImagedVolumeDepth = THICKNESS_MM * 1000  # um
    data.ImageOrientationSlide = [0.0, -1.0, 0.0, -1.0, 0.0, 0.0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = BREADTH_MM, BREADTH_MM
    data.TotalPixelMatrixOriginSequence = [origin]
    organization, *dimensions = Dataset(), Dataset(), Dataset()
    organization.DimensionOrganizationUID = generate_uid(entropy_srcs=[series, "dimensions"])
    data.DimensionOrganizationSequence = [organization]
    for item, pointer in zip(dimensions, (0x0048021E, 0x0048021F), strict=True):
        item.DimensionOrganizationUID = organization.DimensionOrganizationUID
        item.DimensionIndexPointer, item.FunctionalGroupPointer = pointer, 0x0048021A
    data.DimensionIndexSequence = dimensions


def set_scan(data: Dataset, lossy: bool) -> None:
    """How it was scanned and compressed."""
    label = "LABEL" in data.ImageType or "OVERVIEW" in data.ImageType
    data.VolumetricProperties, data.SpecimenLabelInImage = "VOLUME", "YES" if label else "NO"
    data.BurnedInAnnotation, data.FocusMethod, data.ExtendedDepthOfField = "NO", "AUTO", "NO"
    data.LossyImageCompression = "01" if lossy else "00"
    if lossy:
        data.LossyImageCompressionMethod, data.LossyImageCompressionRatio = "ISO_10918_1", 10
    kind = Dataset()
    kind.FrameType = data.ImageType
    data.SharedFunctionalGroupsSequence[0].WholeSlideMicroscopyImageFrameTypeSequence = [kind]
