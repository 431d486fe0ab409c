"""Gene sets: named lists of gene symbols, read from GMT files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.errors import DataError
from stamp_deploy.system.files import refuse_special

MIN_GENES = 10
MIN_COVERAGE = 0.2


@dataclass(frozen=True)
class GeneSets:
    """Named sets of genes, in the order of the file: this order is the order of the model's outputs.

    Attributes
    ----------
    names : tuple of str
    genes : tuple of tuple of str
        The genes of each set, without repeats, in the order of the file.
    weights : tuple of tuple of float, optional
        A weight per gene, for the weighted z-mean; None where the file states none.
    """

    names: tuple[str, ...]
    genes: tuple[tuple[str, ...], ...]
    weights: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if len(self.names) != len(self.genes) or len(set(self.names)) != len(self.names):
            raise DataError("gene sets need one list of genes for each name, and no name twice")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sha256(self) -> str:
        """SHA-256 over names, genes and weights: two files of the same sets have the same hash, whatever their
        descriptions and line endings."""
        digest = hashlib.sha256()
        for i, (name, genes) in enumerate(zip(self.names, self.genes, strict=True)):
            fields = [name, *genes]
            if self.weights is not None:
                fields += [repr(w) for w in self.weights[i]]
            digest.update(("\t".join(fields) + "\n").encode())
        return digest.hexdigest()

    def coverage(self, universe: Iterable[str]) -> list[SetCoverage]:
        """How many genes of each set are measured."""
        known = set(universe)
        return [
            SetCoverage(name, len(genes), sum(g in known for g in genes))
            for name, genes in zip(self.names, self.genes, strict=True)
        ]

    def select(self, names: Sequence[str]) -> GeneSets:
        """Some of the sets, in the order asked for."""
        place = {name: i for i, name in enumerate(self.names)}
        unknown = [name for name in names if name not in place]
        if unknown:
            raise DataError(f"no gene set is called {unknown[0]}", remedy=f"sets: {self.names[:5]} ...")
        index = [place[name] for name in names]
        weights = None if self.weights is None else tuple(self.weights[i] for i in index)
        return GeneSets(tuple(names), tuple(self.genes[i] for i in index), weights)

    def random_like(self, rng: np.random.Generator, universe: Sequence[str]) -> GeneSets:
        """Control sets: for each set as many genes of the universe, drawn at random, as it has measured genes.

        Sizes follow the measured genes, so that a random set is scored from as many genes as the real one. Sets with
        fewer than 2 measured genes get 2. The names gain the prefix ``RANDOM_``.
        """
        return self.random_from(rng, [universe])

    def random_from(self, rng: np.random.Generator, panels: Sequence[Sequence[str]]) -> GeneSets:
        """The same from several pools without a gene in common, as many of each as the set has.

        Where a pool is what the same samples measure, every sample then measures as many genes of the random set as of
        the real one.

        Sets with fewer than 2 genes get them from the largest pool.
        """
        pools = [np.asarray(sorted(set(panel)), dtype=object) for panel in panels]
        largest = max(range(len(pools)), key=lambda i: len(pools[i]))
        sizes = np.array([[c.measured for c in self.coverage(pool)] for pool in pools])
        sizes[largest] += np.maximum(2 - sizes.sum(axis=0), 0)
        drawn: list[list[str]] = [[] for _ in self.names]
        for pool, wanted in zip(pools, sizes.tolist(), strict=True):
            for own, size in zip(drawn, wanted, strict=True):
                own += rng.choice(pool, min(size, len(pool)), replace=False).tolist()
        return GeneSets(tuple(f"RANDOM_{name}" for name in self.names), tuple(tuple(sorted(own)) for own in drawn))


@dataclass(frozen=True)
class SetCoverage:
    """Genes of a set: all, and those that were measured."""

    name: str
    total: int
    measured: int

    @property
    def fraction(self) -> float:
        """Share of the set that is measured, 0 to 1."""
        return self.measured / self.total if self.total else 0.0

    def valid(self, min_genes: int = MIN_GENES, min_coverage: float = MIN_COVERAGE) -> bool:
        """Whether enough of the set is measured for a score that means something."""
        return self.measured >= min_genes and self.fraction >= min_coverage


def read_gmt(path: str | Path) -> GeneSets:
    """Read a GMT file: a line per set, tab-separated: name, description, genes.

    A field ``GENE,0.7`` states a weight (Enrichr's convention); genes without one weigh 1.

    Raises
    ------
    DataError
        The file is no GMT file, a set has no genes, or a name comes twice.
    """
    path = Path(path)
    refuse_special(path, DataError)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as a GMT file: {error}", path=path) from error
    names: list[str] = []
    genes: list[tuple[str, ...]] = []
    weights: list[tuple[float, ...]] = []
    weighted = False
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) < 3 or not fields[0]:
            raise DataError(
                f"line {number} is not name, description and genes between tabs",
                path=path,
                remedy="save the gene sets as GMT, for example from MSigDB",
            )
        members: dict[str, float] = {}
        for field in filter(None, fields[2:]):
            gene, weight, stated = _member(field)
            weighted |= stated
            members.setdefault(gene, weight)
        if not members:
            raise DataError(f"the set {fields[0]} (line {number}) has no genes", path=path, remedy="remove its line")
        if fields[0] in names:
            raise DataError(f"the set {fields[0]} comes twice (line {number})", path=path, remedy="rename one of them")
        names.append(fields[0])
        genes.append(tuple(members))
        weights.append(tuple(members.values()))
    if not names:
        raise DataError("holds no gene set", path=path)
    return GeneSets(tuple(names), tuple(genes), tuple(weights) if weighted else None)


def membership(
    sets: GeneSets, genes: Sequence[str], *, weighted: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The measured members of each set as (gene index, set index, weight) triples, for a sparse matrix [G, P]."""
    place = {gene: i for i, gene in enumerate(genes)}
    rows, columns, values = [], [], []
    for p, members in enumerate(sets.genes):
        for k, gene in enumerate(members):
            if gene in place:
                rows.append(place[gene])
                columns.append(p)
                values.append(sets.weights[p][k] if weighted and sets.weights is not None else 1.0)
    return np.asarray(rows, np.int64), np.asarray(columns, np.int64), np.asarray(values, np.float64)


def _member(field: str) -> tuple[str, float, bool]:
    gene, comma, number = field.rpartition(",")
    if comma and gene:
        try:
            weight = float(number)
        except ValueError:
            return field, 1.0, False
        if math.isfinite(weight):
            return gene.strip(), weight, True
    return field, 1.0, False
