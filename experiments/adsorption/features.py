"""Features of atoms and of distances.

Atoms have eight tabulated properties, each as a one-hot bin, and three flags for the tag. Distances
are expanded in 41 Gaussians. This follows Xie & Grossman 2018, with another table and without their
atomic volume.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from numpy.typing import NDArray
from torch import Tensor

N_TAGS = 3
CENTRES = torch.arange(41) * 0.2  # Å: 0 to 8
WIDTH = 0.2  # Å


class Element(NamedTuple):
    """Tabulated properties of an element; None or 0: no established value.

    ``electronegativity`` is Pauling's; ``ionisation`` (first) and ``affinity`` are in eV. An
    affinity of 0 means that the anion is not bound.
    """

    group: int
    period: int
    electronegativity: float | None
    ionisation: float
    affinity: float


# H to Bi without the lanthanides after La, whose electron affinities are uncertain.
ELEMENTS: dict[str, Element] = {
    "H": Element(1, 1, 2.20, 13.598, 0.754),
    "He": Element(18, 1, None, 24.587, 0),
    "Li": Element(1, 2, 0.98, 5.392, 0.618),
    "Be": Element(2, 2, 1.57, 9.323, 0),
    "B": Element(13, 2, 2.04, 8.298, 0.280),
    "C": Element(14, 2, 2.55, 11.260, 1.262),
    "N": Element(15, 2, 3.04, 14.534, 0),
    "O": Element(16, 2, 3.44, 13.618, 1.461),
    "F": Element(17, 2, 3.98, 17.423, 3.401),
    "Ne": Element(18, 2, None, 21.565, 0),
    "Na": Element(1, 3, 0.93, 5.139, 0.548),
    "Mg": Element(2, 3, 1.31, 7.646, 0),
    "Al": Element(13, 3, 1.61, 5.986, 0.433),
    "Si": Element(14, 3, 1.90, 8.152, 1.390),
    "P": Element(15, 3, 2.19, 10.487, 0.746),
    "S": Element(16, 3, 2.58, 10.360, 2.077),
    "Cl": Element(17, 3, 3.16, 12.968, 3.613),
    "Ar": Element(18, 3, None, 15.760, 0),
    "K": Element(1, 4, 0.82, 4.341, 0.501),
    "Ca": Element(2, 4, 1.00, 6.113, 0.025),
    "Sc": Element(3, 4, 1.36, 6.561, 0.188),
    "Ti": Element(4, 4, 1.54, 6.828, 0.079),
    "V": Element(5, 4, 1.63, 6.746, 0.526),
    "Cr": Element(6, 4, 1.66, 6.767, 0.676),
    "Mn": Element(7, 4, 1.55, 7.434, 0),
    "Fe": Element(8, 4, 1.83, 7.902, 0.153),
    "Co": Element(9, 4, 1.88, 7.881, 0.662),
    "Ni": Element(10, 4, 1.91, 7.640, 1.157),
    "Cu": Element(11, 4, 1.90, 7.726, 1.236),
    "Zn": Element(12, 4, 1.65, 9.394, 0),
    "Ga": Element(13, 4, 1.81, 5.999, 0.301),
    "Ge": Element(14, 4, 2.01, 7.899, 1.233),
    "As": Element(15, 4, 2.18, 9.789, 0.804),
    "Se": Element(16, 4, 2.55, 9.752, 2.021),
    "Br": Element(17, 4, 2.96, 11.814, 3.364),
    "Kr": Element(18, 4, 3.00, 14.000, 0),
    "Rb": Element(1, 5, 0.82, 4.177, 0.486),
    "Sr": Element(2, 5, 0.95, 5.695, 0.052),
    "Y": Element(3, 5, 1.22, 6.217, 0.307),
    "Zr": Element(4, 5, 1.33, 6.634, 0.433),
    "Nb": Element(5, 5, 1.60, 6.759, 0.917),
    "Mo": Element(6, 5, 2.16, 7.092, 0.747),
    "Tc": Element(7, 5, 1.90, 7.119, 0.55),
    "Ru": Element(8, 5, 2.20, 7.361, 1.046),
    "Rh": Element(9, 5, 2.28, 7.459, 1.143),
    "Pd": Element(10, 5, 2.20, 8.337, 0.562),
    "Ag": Element(11, 5, 1.93, 7.576, 1.304),
    "Cd": Element(12, 5, 1.69, 8.994, 0),
    "In": Element(13, 5, 1.78, 5.786, 0.384),
    "Sn": Element(14, 5, 1.96, 7.344, 1.112),
    "Sb": Element(15, 5, 2.05, 8.608, 1.047),
    "Te": Element(16, 5, 2.10, 9.010, 1.971),
    "I": Element(17, 5, 2.66, 10.451, 3.059),
    "Xe": Element(18, 5, 2.60, 12.130, 0),
    "Cs": Element(1, 6, 0.79, 3.894, 0.472),
    "Ba": Element(2, 6, 0.89, 5.212, 0.145),
    "La": Element(3, 6, 1.10, 5.577, 0.558),
    "Hf": Element(4, 6, 1.30, 6.825, 0.178),
    "Ta": Element(5, 6, 1.50, 7.550, 0.329),
    "W": Element(6, 6, 2.36, 7.864, 0.816),
    "Re": Element(7, 6, 1.90, 7.834, 0.060),
    "Os": Element(8, 6, 2.20, 8.438, 1.078),
    "Ir": Element(9, 6, 2.20, 8.967, 1.564),
    "Pt": Element(10, 6, 2.28, 8.959, 2.125),
    "Au": Element(11, 6, 2.54, 9.226, 2.309),
    "Hg": Element(12, 6, 2.00, 10.438, 0),
    "Tl": Element(13, 6, 1.62, 6.108, 0.320),
    "Pb": Element(14, 6, 2.33, 7.417, 0.357),
    "Bi": Element(15, 6, 2.02, 7.286, 0.942),
}

KNOWN = np.array(sorted(atomic_numbers[s] for s in ELEMENTS))  # atomic numbers, ascending


def _bin(value: float | None, low: float, high: float, n: int) -> NDArray[np.float32]:
    """Encode a value one-hot in ``n`` equal bins; None: all zeros.

    The first and the last bin include values outside the range.
    """
    row = np.zeros(n, np.float32)
    if value is not None:
        row[min(max(int((value - low) / (high - low) * n), 0), n - 1)] = 1
    return row


def element_features(symbol: str) -> NDArray[np.float32]:
    """Return the 83 features of one element."""
    e = ELEMENTS[symbol]
    radius = float(covalent_radii[atomic_numbers[symbol]])  # Å
    p_block = e.group >= 13 and symbol != "He"
    valence = e.group - 10 if p_block else 2 if symbol == "He" else e.group
    block = 1 if p_block else 0 if e.group <= 2 or symbol == "He" else 2  # s, p, d, f
    return np.concatenate(
        [
            _bin(e.group, 1, 19, 18),
            _bin(e.period, 1, 10, 9),
            _bin(e.electronegativity, 0.5, 4.0, 10),
            _bin(radius, 0.25, 2.5, 10),
            _bin(valence, 1, 13, 12),
            _bin(float(np.log(e.ionisation)), 1.3, 3.3, 10),
            _bin(e.affinity, 0, 3.7, 10),
            _bin(block, 0, 4, 4),
        ]
    )


def _kinds() -> Tensor:
    """Return features of each pair of known element and tag: (elements * 3, 86)."""
    elements = np.stack([element_features(chemical_symbols[z]) for z in KNOWN])
    flags = np.eye(N_TAGS, dtype=np.float32)
    rows = [np.concatenate([row, flag]) for row in elements for flag in flags]
    return torch.from_numpy(np.stack(rows))


KINDS = _kinds()
N_ATOM_FEATURES = KINDS.shape[1]  # 86
N_EDGE_FEATURES = len(CENTRES)  # 41


def kinds(numbers: NDArray[Any], tags: NDArray[Any]) -> NDArray[np.int16]:
    """Return each atom's index in ``KINDS``.

    Raises
    ------
    ValueError
        An element is not in the table, or a tag is not 0, 1 or 2.
    """
    unknown = sorted(set(np.unique(numbers).tolist()) - set(KNOWN.tolist()))
    if unknown:
        names = [chemical_symbols[z] for z in unknown]
        raise ValueError(
            f"no features for {names}: known are H to Bi without the lanthanides after La; "
            "add a line to ELEMENTS in features.py"
        )
    bad = sorted(set(np.unique(tags).tolist()) - set(range(N_TAGS)))
    if bad:
        raise ValueError(
            f"tags {bad} are not known: 0 is bulk, 1 is surface, 2 is adsorbate "
            "(the Open Catalyst convention, not that of ase.build)"
        )
    rows: NDArray[np.int16] = (np.searchsorted(KNOWN, numbers) * N_TAGS + tags).astype(np.int16)
    return rows


def expand(distance: Tensor) -> Tensor:
    """Expand distances in Gaussians: (...,) -> (..., 41)."""
    centres = CENTRES.to(distance.device, distance.dtype)
    exponent = (distance[..., None] - centres).mul_(1 / WIDTH).square_()
    # exp(-60) is negligible; smaller results would be subnormal, which makes a CPU 7 times slower.
    return exponent.clamp_(max=60).neg_().exp_()
