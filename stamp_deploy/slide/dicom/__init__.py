"""DICOM slides: the files of a series, their headers, and where each frame lies."""

from .series import (
    JPEG_2000,
    Instance,
    first_stream,
    flavor_of,
    is_dicom,
    pixel_data,
    read_instance,
    slide_in_folder,
    volume_instances,
)

__all__ = [
    "JPEG_2000",
    "Instance",
    "first_stream",
    "flavor_of",
    "is_dicom",
    "pixel_data",
    "read_instance",
    "slide_in_folder",
    "volume_instances",
]
