"""Synthetic H&E sections whose molecular programs are known at every point: for the demo and for tests.

A `Section` is a seed. From it follow smooth fields, one per program, in [0, 1]; the picture and the expression (each
program drives its genes) are drawn from the same fields, so that what a model should find is known. Each visible
program has a morphology of its own, in fine texture rather than in mean colour. One program, ``UNSEEN``, drives genes
and leaves no trace in the picture: a model that predicts it is fooling somebody. Nothing here is meant to look like a
particular tissue.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from anndata import AnnData

PROGRAMS = ("PROLIFERATION", "HYPOXIA", "STROMA", "IMMUNE", "UNSEEN")
"""Large nuclei; vacuoles; fibres; small dark nuclei; nothing."""
VISIBLE = PROGRAMS[:4]
EOSIN_RANGE = (0.75, 1.25)
"""Eosin varies over a section by this factor, whatever the programs do: mean colour tells little of them."""
GENES_EACH = 24
BACKGROUND_GENES = 480
STORAGE_TILE = 240

HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
EOSIN = np.array([0.09, 0.95, 0.28], np.float32)
"""Optical density a unit of stain, red, green, blue (Ruifrok and Johnston 2001; eosin after Macenko et al. 2009)."""
GLASS = np.array([243, 242, 244], np.float32)


@dataclass(frozen=True)
class Cells:
    """Round things of one kind: how many per mm2 where their program is 0 and 1, and what they look like.

    ``depth`` is in 1/100: of haematoxylin for nuclei, of the eosin that a vacuole takes away.
    """

    program: int
    per_mm2: tuple[int, int]
    radii_um: tuple[float, float]
    depth: tuple[int, int]
    power: float = 1.5


NUCLEI = (
    Cells(PROGRAMS.index("PROLIFERATION"), (500, 7000), (3.2, 4.4), (45, 80)),
    Cells(PROGRAMS.index("IMMUNE"), (200, 10_000), (2.0, 2.6), (110, 150)),
)
VACUOLES = (Cells(PROGRAMS.index("HYPOXIA"), (0, 8000), (2.4, 3.4), (70, 95), power=1.0),)


@dataclass(frozen=True)
class Section:
    """One synthetic section.

    Attributes
    ----------
    seed : int
        Everything about the section follows from it.
    width, height : int
        Level-0 pixels, multiples of 16.
    mpp : float
        Microns per level-0 pixel.
    pitch_um : float
        Centre to centre of the spots; 100 as on Visium.
    """

    seed: int
    width: int = 4800
    height: int = 3840
    mpp: float = 0.5
    pitch_um: float = 100.0

    def __post_init__(self) -> None:
        if self.width % 16 or self.height % 16 or min(self.width, self.height) < 960:
            raise ValueError(f"a section of {self.width} x {self.height} px: use multiples of 16 from 960 up")

    def programs(self, xy: NDArray[Any]) -> NDArray[np.float32]:
        """Each program at points (x, y) in level-0 pixels: [N, 2] -> float32 [N, len(PROGRAMS)] in [0, 1]."""
        return np.stack([self._sample(field, xy) for field in self._fields[:-1]], axis=1)

    def in_tissue(self, xy: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether points (x, y) in level-0 pixels lie on tissue: [N, 2] -> bool [N]."""
        inside: NDArray[np.bool_] = self._sample(self._fields[-1], xy) > 0.42
        return inside

    def spots(self) -> NDArray[np.float64]:
        """Centres (x, y) in level-0 pixels of the spots under tissue, on a hexagonal lattice: float64 [N, 2]."""
        pitch = self.pitch_um / self.mpp
        rows = np.arange(pitch, self.height - pitch, pitch * np.sqrt(3) / 2)
        points = [
            (x, y)
            for i, y in enumerate(rows)
            for x in np.arange(pitch * (1 + 0.5 * (i % 2)), self.width - pitch, pitch)
        ]
        centres = np.array(points)
        return centres[self.in_tissue(centres)]

    def picture(self) -> NDArray[np.uint8]:
        """The stained section on glass: uint8 [height, width, 3]."""
        rng = np.random.default_rng((self.seed, 1))
        stain = rng.uniform(0.85, 1.15, 2).astype(np.float32)  # every laboratory stains a little differently
        nuclei = self._cells(rng, NUCLEI)
        vacuoles = self._cells(np.random.default_rng((self.seed, 3)), VACUOLES)
        grain = ndimage.gaussian_filter(rng.normal(size=(512, 512)), 1.5, mode="wrap").astype(np.float32)
        grain /= grain.std()
        out = np.empty((self.height, self.width, 3), np.uint8)
        for top in range(0, self.height, STORAGE_TILE):
            bottom = min(top + STORAGE_TILE, self.height)
            out[top:bottom] = self._stripe(slice(top, bottom), nuclei, vacuoles, grain, stain)
        return out

    @cached_property
    def _fields(self) -> list[NDArray[np.float32]]:
        """Fields on a lattice of 32 px: one per program, then the tissue's height."""
        rng = np.random.default_rng((self.seed, 0))
        shape = self._lattice
        fields = [self._uniform_field(rng) for _ in PROGRAMS]
        y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
        edge = ndimage.gaussian_filter(rng.normal(size=shape), 400 / (32 * self.mpp), mode="reflect")
        dome = 1 - (np.abs(x) ** 2.5 + np.abs(y) ** 2.5) ** 0.8 + 0.25 * edge / np.abs(edge).max()
        fields.append(dome.astype(np.float32))
        return fields

    @cached_property
    def _eosin(self) -> NDArray[np.float32]:
        """By what factor the section takes eosin, on the lattice: a field of its own."""
        low, high = EOSIN_RANGE
        return np.asarray(low + (high - low) * self._uniform_field(np.random.default_rng((self.seed, 4))), np.float32)

    @property
    def _lattice(self) -> tuple[int, int]:
        return self.height // 32 + 2, self.width // 32 + 2

    def _uniform_field(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """A smooth field; ranks make its values uniform in [0, 1]."""
        noise = ndimage.gaussian_filter(rng.normal(size=self._lattice), 200 / (32 * self.mpp), mode="reflect")
        ranks = noise.ravel().argsort().argsort().reshape(self._lattice)
        return np.asarray(ranks / (ranks.size - 1), np.float32)

    def _sample(self, field: NDArray[np.float32], xy: NDArray[Any]) -> NDArray[np.float32]:
        at = np.asarray(xy, np.float64)[:, ::-1].T / 32
        return np.asarray(ndimage.map_coordinates(field, at, order=1, mode="nearest"), np.float32)

    def _cells(self, rng: np.random.Generator, kinds: tuple[Cells, ...]) -> NDArray[np.uint8]:
        """Ellipses of some kinds, each as deep as its kind says: uint8 [height, width]."""
        canvas = np.zeros((self.height, self.width), np.uint8)
        for kind in kinds:
            low, high = kind.per_mm2
            stamps = [_ellipse(rng, kind, self.mpp) for _ in range(64)]
            points = self._candidates(rng, high)
            wanted = (low + (high - low) * self.programs(points)[:, kind.program] ** kind.power) / high
            points = points[(rng.uniform(size=len(points)) < wanted) & self.in_tissue(points)]
            half = len(stamps[0]) // 2
            inside = (points > half).all(1) & (points < (self.width - half - 1, self.height - half - 1)).all(1)
            for (x, y), which in zip(points[inside].astype(int), rng.integers(64, size=inside.sum()), strict=True):
                part = canvas[y - half : y + half + 1, x - half : x + half + 1]
                np.maximum(part, stamps[which], out=part)
        return canvas

    def _candidates(self, rng: np.random.Generator, density: float) -> NDArray[np.float64]:
        """Points (x, y) on a jittered lattice of `density` per mm2: cells keep some distance from each other."""
        step = 1000 / self.mpp / np.sqrt(density)
        x, y = np.meshgrid(np.arange(0, self.width, step), np.arange(0, self.height, step))
        lattice = np.stack([x.ravel(), y.ravel()], axis=1)
        return lattice + rng.uniform(0, step, lattice.shape)

    def _stripe(
        self,
        rows: slice,
        nuclei: NDArray[np.uint8],
        vacuoles: NDArray[np.uint8],
        grain: NDArray[np.float32],
        stain: NDArray[np.float32],
    ) -> NDArray[np.uint8]:
        """Some rows by the law of Lambert and Beer: glass * 10 ** -(stain * density)."""
        top, bottom = rows.start, rows.stop
        y = np.arange(top, bottom, dtype=np.float32)[:, None]
        x = np.arange(self.width, dtype=np.float32)[None, :]
        fields = self._eosin, self._fields[PROGRAMS.index("STROMA")], self._fields[-1]
        amount, fibre, height = (_bilinear(field, y / 32, x / 32) for field in fields)
        noise = np.tile(grain, (1, self.width // 512 + 1))[np.arange(top, bottom) % 512, : self.width]
        phase = (0.8 * x + 0.6 * y) * np.float32(self.mpp * 2 * np.pi / 11)  # fibres 11 um apart
        waves = np.sin(phase + 6 * np.sin(y * np.float32(self.mpp / 70)) + 0.5 * noise)
        eosin = amount * (0.40 + 0.16 * fibre * waves + 0.03 * noise) * (1 - vacuoles[rows] / np.float32(100))
        tissue = ((height - 0.42) / 0.01).clip(0, 1)  # a soft edge
        dyes = (stain[0] * tissue * (nuclei[rows] / np.float32(100) + 0.04), stain[1] * tissue * eosin.clip(0.03))
        out = np.empty((bottom - top, self.width, 3), np.uint8)
        for channel in range(3):
            density = dyes[0] * HAEMATOXYLIN[channel] + dyes[1] * EOSIN[channel]
            light = GLASS[channel] * np.exp(density * np.float32(-np.log(10)))
            out[..., channel] = (light + noise).clip(0, 255)
        return out


def _ellipse(rng: np.random.Generator, kind: Cells, mpp: float) -> NDArray[np.uint8]:
    """One of a kind: uint8, square, of the side that the largest one needs."""
    reach = int(kind.radii_um[1] / mpp) + 1
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    radius, flat, angle = rng.uniform(*kind.radii_um) / mpp, rng.uniform(0.7, 1.0), rng.uniform(0, np.pi)
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    shape = along**2 + (across / flat) ** 2 <= radius**2
    return np.where(shape, int(rng.uniform(*kind.depth)), 0).astype(np.uint8)


def _bilinear(field: NDArray[np.float32], y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float32]:
    """A lattice at fractional rows y [h, 1] and columns x [1, w]: float32 [h, w]; separable, so cheap."""
    i, j = y.astype(int), x.astype(int)
    v, u = (y - i).astype(np.float32), (x - j).astype(np.float32)
    across = field[:, j[0]] * (1 - u) + field[:, j[0] + 1] * u
    return np.asarray(across[i[:, 0]] * (1 - v) + across[i[:, 0] + 1] * v, np.float32)


def gene_names() -> tuple[str, ...]:
    """The genes of `expression`: GENES_EACH per program, then those that belong to none."""
    own = [f"{program[:4]}{i + 1}" for program in PROGRAMS for i in range(GENES_EACH)]
    return (*own, *(f"BKG{i + 1}" for i in range(BACKGROUND_GENES)))


def expression(section: Section, depth: float = 12_000.0) -> AnnData:
    """Counts of the section's spots, Poisson around rates that the programs set.

    Parameters
    ----------
    depth : float
        Median counts per spot; single spots vary by a factor of about 1.3.

    Returns
    -------
    AnnData
        X float32 CSR [spots, genes]; obsm["spatial"] float64 [spots, 2], level-0 pixels;
        obsm["truth"] float32 [spots, len(PROGRAMS)], the programs at the spots' centres.
    """
    import anndata
    import pandas as pd
    from scipy import sparse

    gene_rng = np.random.default_rng(20260604)  # the same genes in every section
    genes = gene_names()
    base = np.exp(gene_rng.normal(0, 0.6, len(genes)))
    slope = gene_rng.uniform(2.0, 3.0, len(genes))
    rng = np.random.default_rng((section.seed, 2))
    spots = section.spots()
    truth = section.programs(spots)
    rate = np.tile(base, (len(spots), 1))
    for k in range(len(PROGRAMS)):
        own = slice(k * GENES_EACH, (k + 1) * GENES_EACH)
        rate[:, own] *= np.exp(slope[own] * (truth[:, [k]] - 0.5))
    counts = depth * np.exp(rng.normal(0, 0.25, (len(spots), 1)))
    x = rng.poisson(counts * rate / rate.sum(1, keepdims=True)).astype(np.float32)
    names = [f"S{section.seed}-{i:05d}" for i in range(len(spots))]
    return anndata.AnnData(
        sparse.csr_matrix(x),
        obs=pd.DataFrame(index=names),
        var=pd.DataFrame(index=list(genes)),
        obsm={"spatial": spots, "truth": truth},
    )


def write_gene_sets(path: Path) -> Path:
    """The programs' genes as a GMT file."""
    genes = gene_names()
    lines = [
        "\t".join((program, "synthetic", *genes[k * GENES_EACH : (k + 1) * GENES_EACH]))
        for k, program in enumerate(PROGRAMS)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_slide(path: Path, section: Section, quality: int = 85) -> Path:
    """The section as an Aperio-style SVS: pyramid of 1, 4 and 16, JPEG YCbCr 4:2:0 tiles of 240 px, mpp recorded."""
    import tifffile

    picture = section.picture()
    text = (
        f"Aperio synthetic section of stamp-deploy\n{section.width}x{section.height} "
        f"|AppMag = {10 / section.mpp:g}|MPP = {section.mpp:g}"
    )
    with tifffile.TiffWriter(path, bigtiff=False) as file:
        for reduction, level in _levels(picture):
            file.write(
                level,
                tile=(STORAGE_TILE, STORAGE_TILE),
                photometric="rgb",  # encoded as YCbCr
                subsampling=(2, 2),
                compression="jpeg",
                compressionargs={"level": quality},
                description=text if reduction == 1 else f"Aperio synthetic section of stamp-deploy, 1/{reduction}",
                metadata=None,
                subfiletype=0 if reduction == 1 else 1,
            )
    return path


def _levels(picture: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    yield 1, picture
    for reduction in (4, 16):
        height, width, _ = picture.shape
        blocks = picture.reshape(height // reduction, reduction, width // reduction, reduction, 3)
        yield reduction, np.asarray(blocks.mean((1, 3)).round(), np.uint8)


def write_cohort(folder: Path, seeds: tuple[int, ...], **size: Any) -> Path:
    """Sections of as many patients as there are seeds: slides, AnnData, gene sets and the config of `cohort build`.

    Returns
    -------
    Path
        cohort.toml, for ``stamp-deploy cohort build``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_gene_sets(folder / "programs.gmt")
    lines = ["tile_px = 64", "mpp = 1.0", 'gmt = "programs.gmt"', ""]
    for seed in seeds:
        section = Section(seed, **size)
        write_slide(folder / f"section-{seed}.svs", section)
        expression(section).write_h5ad(folder / f"section-{seed}.h5ad")
        facts = {
            "id": f"section-{seed}", "patient_id": f"patient-{seed}", "format": "anndata",
            "counts": f"section-{seed}.h5ad", "image": f"section-{seed}.svs",
            "platform": "synthetic", "organ": "synthetic",
        }  # fmt: skip
        lines += ["[[samples]]", *(f"{key} = {json.dumps(value)}" for key, value in facts.items()), ""]
    path = folder / "cohort.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
