"""What stands around the maps: text, colour bars and scale bars, drawn with Pillow in the font that matplotlib brings.

Pillow draws a page in milliseconds where matplotlib takes a quarter of a second, and the same page is the same bytes.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..map_style import DIVERGING, STRETCHED, colour_table
from .picture import OPACITY, View, length_label, round_length_um

INK, QUIET, FRAME, WARN = "#222222", "#6b6b6b", "#d0d0d0", "#8a4b00"
LINE = 1.3
"""Height of a line of text, in font sizes."""
_SMOOTH = 4


@cache
def font(px: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans of a size in pixels; the basic layout gives the same picture on every machine."""
    import matplotlib

    name = f"DejaVuSans{'-Bold' if bold else ''}.ttf"
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", name)
    return ImageFont.truetype(str(path), px, layout_engine=ImageFont.Layout.BASIC)


def text_width(text: str, px: int, *, bold: bool = False) -> int:
    """Width of a line of text, pixels."""
    return math.ceil(font(px, bold).getlength(text))


def fit(text: str, px: int, width: int, *, bold: bool = False) -> str:
    """The text, or as much of its beginning as fits into `width` pixels, with an ellipsis."""
    if text_width(text, px, bold=bold) <= width:
        return text
    keep = len(text)
    while keep > 1 and text_width(text[:keep].rstrip() + " …", px, bold=bold) > width:
        keep -= 1
    return text[:keep].rstrip() + " …"


def wrap(text: str, px: int, width: int, lines: int) -> list[str]:
    """The text in at most `lines` lines of `width` pixels, broken at blanks; a word that is too long inside it."""
    found: list[str] = []
    words = text.split() or [""]
    while words and len(found) < lines:
        if len(found) == lines - 1:
            found.append(fit(" ".join(words), px, width))
            break
        line = words.pop(0)
        while words and text_width(f"{line} {words[0]}", px) <= width:
            line = f"{line} {words.pop(0)}"
        keep = len(line)
        while keep > 1 and text_width(line[:keep], px) > width:
            keep -= 1
        if keep < len(line):
            words.insert(0, line[keep:])
        found.append(line[:keep])
    return found


def write_text(
    image: Image.Image,
    xy: tuple[float, float],
    text: str | Sequence[str],
    px: int,
    *,
    colour: str = INK,
    anchor: str = "ls",
    bold: bool = False,
) -> None:
    """Write text at a point; lines follow each other downwards. `anchor` is Pillow's: "ls" is left, base line."""
    draw = ImageDraw.Draw(image)
    for number, line in enumerate([text] if isinstance(text, str) else text):
        draw.text((xy[0], xy[1] + number * px * LINE), line, fill=colour, font=font(px, bold), anchor=anchor)


def write_upwards(image: Image.Image, xy: tuple[int, int], text: str, px: int) -> None:
    """Write a line that runs upwards, its middle at a point, its base line to the right."""
    size = text_width(text, px) + 4, round(px * 1.5)
    patch = Image.new("RGB", size, "white")
    write_text(patch, (2, px * 1.15), text, px)
    turned = patch.rotate(90, expand=True)
    image.paste(turned, (xy[0], xy[1] - turned.height // 2))


def ticks(low: float, high: float, most: int = 5) -> list[tuple[float, str]]:
    """Round values between `low` and `high` with their labels, all with as many decimals as the finest needs."""
    from matplotlib.ticker import MaxNLocator

    margin = 1e-9 * (high - low)
    values = [
        v
        for v in MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        if low - margin <= v <= high + margin
    ]
    if not values:
        return []
    step = min(np.diff(values)) if len(values) > 1 else abs(values[0]) or 1.0
    if max(map(abs, values)) >= 1e5 or step < 1e-4:
        labels = [f"{v:.3g}" for v in values]
    else:
        decimals = next((d for d in range(8) if all(abs(round(v, d) - v) <= 1e-6 * step for v in values)), 8)
        labels = [f"{v + 0.0:.{decimals}f}" for v in values]
    return [(v, label.replace("-", "\N{MINUS SIGN}")) for v, label in zip(values, labels, strict=True)]


@cache
def bar_colours(palette: str = STRETCHED, opacity: float = OPACITY) -> NDArray[np.uint8]:
    """The colours of a bar, as they look over white at the maps' opacity: uint8 [256, 3]."""
    return np.rint(opacity * colour_table(palette).astype(np.float64) + (1 - opacity) * 255).astype(np.uint8)


def horizontal_bar(
    image: Image.Image,
    box: tuple[int, int, int, int],
    low: float,
    high: float,
    *,
    palette: str = STRETCHED,
    opacity: float = OPACITY,
) -> None:
    """A colour bar in box (left, top, width, height), its ticks below."""
    left, top, wide, high_px = box
    level = np.linspace(0, 255, wide).round().astype(np.int64)
    strip = np.broadcast_to(bar_colours(palette, opacity)[level], (high_px, wide, 3))
    image.paste(Image.fromarray(np.ascontiguousarray(strip)), (left, top))
    draw = ImageDraw.Draw(image)
    draw.rectangle((left, top, left + wide - 1, top + high_px - 1), outline=INK)
    for value, label in ticks(low, high, 6 if palette == DIVERGING else 5):
        x = left + round((value - low) / (high - low) * (wide - 1))
        draw.line((x, top + high_px, x, top + high_px + 3), fill=INK)
        half = text_width(label, 16) / 2
        at = min(max(x, left + half), left + wide - half)  # labels at an end stay within the bar
        write_text(image, (at, top + high_px + 7), label, 16, anchor="ma")


def vertical_bar(
    image: Image.Image,
    box: tuple[int, int, int, int],
    low: float,
    high: float,
    unit: str,
    *,
    palette: str = STRETCHED,
    opacity: float = OPACITY,
) -> None:
    """A colour bar in box (left, top, width, height): pointed at both ends, ticks and unit to its right."""
    left, top, wide, high_px = box
    point = max(8, round(high_px * 0.03))
    level = np.clip((high_px - 1 - point - np.arange(high_px)) / (high_px - 1 - 2 * point), 0, 1) * 255
    colours = bar_colours(palette, opacity)[level.round().astype(np.int64)]
    body = Image.fromarray(np.ascontiguousarray(np.broadcast_to(colours[:, None], (high_px, wide, 3))))
    middle, low_point = wide / 2, high_px - point
    shape = [(0, point), (middle, 0), (wide, point), (wide, low_point), (middle, high_px), (0, low_point)]
    large = Image.new("L", (wide * _SMOOTH, high_px * _SMOOTH), 0)
    ImageDraw.Draw(large).polygon([(x * _SMOOTH, y * _SMOOTH) for x, y in shape], fill=255)
    image.paste(body, (left, top), large.resize((wide, high_px), Image.Resampling.BOX))
    draw = ImageDraw.Draw(image)
    widest = 0
    for value, label in ticks(low, high, 8):
        y = top + high_px - 1 - point - round((value - low) / (high - low) * (high_px - 1 - 2 * point))
        draw.line((left + wide, y, left + wide + 4, y), fill=INK)
        write_text(image, (left + wide + 8, y), label, 14, anchor="lm")
        widest = max(widest, text_width(label, 14))
    write_upwards(image, (left + wide + 16 + widest, top + high_px // 2), fit(unit, 15, high_px), 15)


def scale_bar(image: Image.Image, view: View, xy: tuple[int, int], width_px: int, px: int) -> None:
    """A bar of a round length with its label, its left end at `xy`, for a view that is drawn `width_px` wide."""
    length_um = round_length_um(view.width_um)
    length = round(length_um / view.width_um * width_px)
    draw = ImageDraw.Draw(image)
    draw.rectangle((xy[0], xy[1] - 2, xy[0] + length, xy[1] + 1), fill=INK)
    write_text(image, (xy[0] + length + 8, xy[1]), length_label(length_um), px, anchor="lm")


def outline(image: Image.Image, left: int, top: int, wide: int, high: int) -> None:
    """A thin frame around a picture."""
    ImageDraw.Draw(image).rectangle((left - 1, top - 1, left + wide, top + high), outline=FRAME)


def png_bytes(image: Image.Image) -> bytes:
    """The picture as PNG (ISO/IEC 15948), without metadata: the same picture gives the same bytes.

    Rows are coded as differences from the row above ("Up"), which suits maps made of tiles; trying every filter on
    every row, as Pillow does, takes three times as long.
    """
    pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    rows = pixels.reshape(len(pixels), -1)
    coded = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    coded[:, 0] = 2
    coded[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=coded[1:, 1:])
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(coded.data, 1)), (b"IEND", b"")):
        parts += [struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))]
    return b"".join(parts)
