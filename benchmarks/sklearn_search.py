"""Hyperband and ASHA on a Dask array, against scikit-learn's random halving.

dask-ml's case, ``partial_fit`` of an ``SGDClassifier`` by chunks. In turns, on the same workers and
splits of new data; quality is accuracy on rows that no search has seen. scikit-learn's search has
the same number of processes, and the rows in memory, since it takes no Dask array.

    python -m benchmarks.sklearn_search [ROUNDS] [ROWS]
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from typing import Any

import dask.array as da
import numpy as np
from distributed import Client
from scipy.stats import loguniform
from sklearn.datasets import make_classification
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import HalvingRandomSearchCV

from daskhpo.sklearn import ASHASearchCV, HyperbandSearchCV

N_WORKERS = 2
SPACE = {
    "alpha": loguniform(1e-6, 1),
    "eta0": loguniform(1e-3, 1),
    "learning_rate": ["optimal", "invscaling", "adaptive"],
    "penalty": ["l2", "l1", "elasticnet"],
    "average": [True, False],
}


def model() -> SGDClassifier:
    return SGDClassifier(random_state=0, tol=1e-3)


def searches(seed: int) -> dict[str, Any]:
    """The searches, each with about as many candidates."""
    hyperband = HyperbandSearchCV(model(), SPACE, max_iter=27, random_state=seed)
    n = hyperband.metadata["n_models"]
    return {
        "HyperbandSearchCV": hyperband,
        "ASHASearchCV": ASHASearchCV(model(), SPACE, n_iter=n, max_iter=27, random_state=seed),
        "HalvingRandomSearchCV": HalvingRandomSearchCV(
            model(), SPACE, n_candidates=n, random_state=seed, n_jobs=N_WORKERS
        ),
    }


def main(rounds: int = 3, rows: int = 100_000) -> None:
    warnings.simplefilter("ignore")
    seconds: dict[str, list[float]] = {}
    quality: dict[str, list[float]] = {}
    with Client(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address="127.0.0.1:0"):
        for seed in range(rounds):
            x, y = make_classification(
                2 * rows, 40, n_informative=20, flip_y=0.1, random_state=seed
            )
            test = (x[rows:], y[rows:])
            x, y = x[:rows], y[:rows]
            chunked = (da.from_array(x, chunks=(rows // 10, 40)), da.from_array(y, rows // 10))
            for name, search in searches(seed).items():
                began = time.perf_counter()
                search.fit(*((x, y) if name.startswith("Halving") else chunked))
                seconds.setdefault(name, []).append(time.perf_counter() - began)
                quality.setdefault(name, []).append(float(search.best_estimator_.score(*test)))
                print(seed, name, seconds[name][-1], quality[name][-1], flush=True)
    peer = seconds["HalvingRandomSearchCV"]
    print(f"\n{rows} rows, {rounds} rounds, {N_WORKERS} processes; medians\n")
    print("| search | seconds | times as fast as HalvingRandomSearchCV | accuracy on new rows |")
    print("|---|---:|---:|---:|")
    for name, of in seconds.items():
        ratio = statistics.median(np.divide(peer, of))
        accuracy = statistics.median(quality[name])
        print(f"| `{name}` | {statistics.median(of):.1f} | {ratio:.1f} | {accuracy:.4f} |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
