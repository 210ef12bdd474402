"""Estimates of the device memory of a configuration, before training.

    python -m experiments.adsorption.memory [--profile gpu] [--atoms 40]

prints the memory of the profile's configurations, and the share that fits on devices of some sizes.

The bytes that autograd saves for the backward pass follow from the model and are exact. The
workspace of the backward pass and the memory of evaluation are bounds, measured with torch's
profiler on a CPU. Kernels of other devices may need other workspaces; nothing was measured on a
GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskhpo.space import Space
from experiments.adsorption.evaluate import BATCH
from experiments.adsorption.features import N_ATOM_FEATURES, N_EDGE_FEATURES
from experiments.adsorption.model import n_parameters
from experiments.adsorption.profiles import BATCH_SIZES, PROFILES, profile_named

NEIGHBOURS = 12
FLOAT = 4  # bytes
# Weights, gradients and two moments of Adam; the best epoch's weights; copies of all except the
# gradients during a checkpoint.
PER_PARAMETER = FLOAT * (4 + 1 + 4)
GIB = 2**30
HEAD = {"fc_size": 150, "fc_layers": 40}  # the largest head; its size has little effect


@dataclass(frozen=True)
class Memory:
    """Device memory of a trial in bytes.

    The device's context and the data set are not included.

    Attributes
    ----------
    saved : bytes that a training step saves for its backward pass. Exact.
    workspace : additional bytes during the backward pass. A bound, measured on a CPU.
    evaluation : bytes for a batch of evaluation, which saves nothing. Measured on a CPU.
    parameters : bytes of weights, gradients, optimiser state and their copies.
    """

    saved: int
    workspace: int
    evaluation: int
    parameters: int

    @property
    def peak(self) -> int:
        """Largest number of bytes at any time."""
        return self.parameters + max(self.saved + self.workspace, self.evaluation)


def estimate(config: Mapping[str, Any], atoms: float) -> Memory:
    """Estimate the memory of a configuration.

    Parameters
    ----------
    atoms : atoms per structure: the mean for large batches, or the largest number to be safe.

    Examples
    --------
    >>> sizes = {"embedding": 100, "conv_layers": 40, "fc_size": 150, "fc_layers": 40}
    >>> round(estimate({"batch_size": 238, **sizes}, atoms=40).peak / GIB, 1)
    7.4
    """
    a, n_layers = config["embedding"], config["conv_layers"]
    h, n_fc = config["fc_size"], config["fc_layers"]
    n_graphs = config["batch_size"]
    n_atoms = n_graphs * atoms
    # Features and expanded distances; 64-bit indices.
    inputs = N_ATOM_FEATURES + NEIGHBOURS * N_EDGE_FEATURES + 2 * NEIGHBOURS + 2
    # Gate and core before and after their activations (M, 4a); the layer's and the norm's input.
    per_layer = (4 * NEIGHBOURS + 2) * a
    saved = n_atoms * (inputs + n_layers * per_layer + a) + 2 * a * n_layers
    saved += n_graphs * (a + 2 * h * n_fc + 3)
    return Memory(
        saved=round(FLOAT * saved),
        workspace=round(FLOAT * n_atoms * (36 * a + 16)),
        evaluation=round(FLOAT * BATCH * atoms * (85 * a + 533)),
        parameters=PER_PARAMETER * n_parameters(a, n_layers, h, n_fc),
    )


def largest_batch(config: Mapping[str, Any], atoms: float, n_bytes: float) -> float | None:
    """Return the experiment's largest batch size that fits, or None."""
    fitting = [
        size
        for size in BATCH_SIZES.values
        if estimate({**config, "batch_size": size}, atoms).peak <= n_bytes
    ]
    return max(fitting, default=None)


def table(atoms: float) -> str:
    """Format the peak in GiB by architecture and batch size, as Markdown."""
    sizes = [BATCH_SIZES.values[0], BATCH_SIZES.values[5], BATCH_SIZES.values[-1]]
    lines = [
        "| embedding | convolutions | " + " | ".join(f"batch {size}" for size in sizes) + " |",
        "|---:|---:|" + "---:|" * len(sizes),
    ]
    for embedding, conv_layers in ((16, 2), (32, 4), (50, 20), (100, 20), (100, 40)):
        network = {"embedding": embedding, "conv_layers": conv_layers} | HEAD
        cells = [estimate({**network, "batch_size": size}, atoms).peak / GIB for size in sizes]
        row = " | ".join(f"{cell:.2f}" for cell in cells)
        lines.append(f"| {embedding} | {conv_layers} | {row} |")
    return "\n".join(lines)


def shares(profile: str, atoms: float, gib: Sequence[float], n: int = 10_000) -> dict[float, float]:
    """Return the shares of a profile's random configurations that fit in some GiB."""
    space = Space(profile_named(profile).space())
    generator = np.random.default_rng(0)
    peaks = np.array([estimate(space.sample(generator), atoms).peak for _ in range(n)])
    return {size: float((peaks <= size * GIB).mean()) for size in gib}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", choices=sorted(PROFILES), default="gpu")
    parser.add_argument("--atoms", type=float, default=40, help="atoms per structure; default: 40")
    parser.add_argument("--gib", type=float, nargs="+", default=[1, 2, 4, 8, 16])
    options = parser.parse_args()
    print(f"Peak memory in GiB, structures of {options.atoms:g} atoms, FC 150 × 40\n")
    print(table(options.atoms))
    print(f"\nRandom configurations of {options.profile!r} that need at most")
    for size, share in shares(options.profile, options.atoms, options.gib).items():
        print(f"  {size:g} GiB  {share:7.2%}")


if __name__ == "__main__":
    main()
