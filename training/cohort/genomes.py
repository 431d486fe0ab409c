"""Genes of several genomes in one matrix: those of one are kept, and their names lose the genome in front.

Matrices that were mapped to a joint reference (human xenografts in mice, for instance) name genes GRCh38_TP53 and
mm10___Trp53; some programs keep the prefix where there is one genome only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from stamp_deploy.errors import DataError

_PREFIX = re.compile(
    r"(GRC[a-z]{1,2}\d+|hg\d+|mm\d+|rn\d+|mRatBN[\d.]+|Rnor_[\d.]+|danRer\d+|Sscrofa[\d.]+|CanFam[\d.]+)"
    r"(?:-\d{4}-\w)?_+",
    re.IGNORECASE,
)
_HUMAN = re.compile(r"GRCh|hg\d", re.IGNORECASE)
MOST = 0.5
"""Share of the names that must carry a genome, before prefixes are believed."""


@dataclass(frozen=True)
class GenomeChoice:
    """What is left of a matrix of several genomes.

    Attributes
    ----------
    columns : tuple of int
        The genes that are kept: those of the genome, and those that name none.
    names : tuple of str
        Of these genes, without the prefix.
    ids : tuple of str or None
    genome : str
        As the prefix writes it; empty where names carry none.
    left_out : dict of str to int
        Genes of the other genomes.
    """

    columns: tuple[int, ...]
    names: tuple[str, ...]
    ids: tuple[str, ...] | None
    genome: str
    left_out: dict[str, int]


def choose_genome(names: Sequence[str], ids: Sequence[str] | None = None, wanted: str = "") -> GenomeChoice:
    """The genes of the genome `wanted`; of the only one, or of the human one, where none is wanted.

    Raises
    ------
    DataError
        There are several genomes, none of them human, or not the one that is wanted.
    """
    found = [_PREFIX.match(name) for name in names]
    genomes = [match[1] if match else "" for match in found]
    count = Counter(g for g in genomes if g)
    if sum(count.values()) < MOST * len(names):
        if wanted:
            raise DataError(f"the genes name no genome, so {wanted} cannot be chosen", remedy="remove genome")
        return GenomeChoice(tuple(range(len(names))), tuple(names), None if ids is None else tuple(ids), "", {})
    fitting = [g for g in count if (g.lower() == wanted.lower() if wanted else len(count) == 1 or _HUMAN.match(g))]
    if len(fitting) != 1:
        raise DataError(
            f"the genes are of the genomes {', '.join(sorted(count))}" + (f", not of {wanted}" if wanted else ""),
            remedy=f'choose one: genome = "{sorted(count)[0]}"',
        )
    genome = fitting[0]
    columns = tuple(i for i, g in enumerate(genomes) if g in ("", genome))
    return GenomeChoice(
        columns,
        tuple(_PREFIX.sub("", names[i], count=1) if genomes[i] else names[i] for i in columns),
        None if ids is None else tuple(_PREFIX.sub("", ids[i], count=1) for i in columns),
        genome,
        {g: n for g, n in sorted(count.items()) if g != genome},
    )
