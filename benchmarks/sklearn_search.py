"""Hyperband and ASHA on a Dask array, against scikit-learn's random halving.

dask-ml's case, ``partial_fit`` of an ``SGDClassifier`` by chunks. In turns, on the same data, with
the same splits and as many candidates; those of ``ASHASearchCV`` are scikit-learn's.
Quality is accuracy on rows that no search has seen. scikit-learn's search has the same number of
processes, and the rows in memory, since it takes no Dask array.

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
from sklearn.model_selection import HalvingRandomSearchCV, ShuffleSplit, StratifiedKFold

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


def splits(seed: int) -> dict[str, Any]:
    """The ways to score candidates; each search gets the same one."""
    return {
        "one split of 10 %": ShuffleSplit(1, test_size=0.1, random_state=seed),
        "three folds": StratifiedKFold(3, shuffle=True, random_state=seed),
    }


def searches(seed: int, cv: Any) -> dict[str, Any]:
    """The searches, each with as many candidates; halving ends with all rows."""
    common = {"cv": cv, "random_state": seed}
    hyperband = HyperbandSearchCV(model(), SPACE, max_iter=27, **common)
    n = hyperband.metadata["n_models"]
    return {
        "HyperbandSearchCV": hyperband,
        "ASHASearchCV": ASHASearchCV(model(), SPACE, n_iter=n, max_iter=27, **common),
        "HalvingRandomSearchCV": HalvingRandomSearchCV(
            model(), SPACE, n_candidates=n, min_resources="exhaust", n_jobs=N_WORKERS, **common
        ),
    }


def candidates(search: Any) -> list[str]:
    """The configurations that a search has tried."""
    found = search.cv_results_["params"]
    return sorted({str([(n, str(v)) for n, v in sorted(params.items())]) for params in found})


def main(rounds: int = 3, rows: int = 50_000) -> None:
    warnings.simplefilter("ignore")
    seconds: dict[tuple[str, str], list[float]] = {}
    quality: dict[tuple[str, str], list[float]] = {}
    with Client(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address="127.0.0.1:0"):
        for seed in range(rounds):
            x, y = make_classification(
                2 * rows, 40, n_informative=20, flip_y=0.1, random_state=seed
            )
            test = (x[rows:], y[rows:])
            x, y = x[:rows], y[:rows]
            chunked = (da.from_array(x, chunks=(rows // 10, 40)), da.from_array(y, rows // 10))
            for how, cv in splits(seed).items():
                tried: dict[str, list[str]] = {}
                for name, search in searches(seed, cv).items():
                    began = time.perf_counter()
                    search.fit(*((x, y) if name.startswith("Halving") else chunked))
                    seconds.setdefault((how, name), []).append(time.perf_counter() - began)
                    accuracy = float(search.best_estimator_.score(*test))
                    quality.setdefault((how, name), []).append(accuracy)
                    tried[name] = candidates(search)
                    print(seed, how, name, seconds[how, name][-1], accuracy, flush=True)
                assert tried["ASHASearchCV"] == tried["HalvingRandomSearchCV"]
                assert len({len(found) for found in tried.values()}) == 1
    print(f"\n{rows} rows, {rounds} rounds, {N_WORKERS} processes; medians\n")
    print("| scored by | search | seconds | times as fast | least, most | accuracy on new rows |")
    print("|---|---|---:|---:|---:|---:|")
    for (how, name), of in seconds.items():
        ratios = np.divide(seconds[how, "HalvingRandomSearchCV"], of)
        spread = f"{np.median(ratios):.1f} | {ratios.min():.1f}, {ratios.max():.1f}"
        accuracy = statistics.median(quality[how, name])
        print(f"| {how} | `{name}` | {statistics.median(of):.1f} | {spread} | {accuracy:.4f} |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
