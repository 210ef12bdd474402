"""Tune a crystal graph network on adsorption energies; run by ``make study``."""

from __future__ import annotations

import argparse
from typing import Any

from daskhpo import Study
from daskhpo.results.result import Result
from daskhpo.schedulers import ASHA
from daskhpo.searchers import RandomSearch
from experiments.adsorption.data import baselines, load, prepare
from experiments.adsorption.evaluate import test_error
from experiments.adsorption.profiles import PROFILES, Profile
from experiments.adsorption.trainable import AdsorptionNet


def make_study(profile: Profile, name: str, storage: str, seed: int) -> Study:
    """Define a study with ASHA and random search.

    Trials are ranked by their best epoch so far, because at a constant learning rate the validation
    error jumps by a factor of two between epochs.
    """
    return Study(
        AdsorptionNet,
        space=profile.space(),
        metric="val_mae",
        mode="min",
        scheduler=ASHA(
            max_t=profile.max_t,
            grace_period=profile.grace_period,
            reduction_factor=profile.eta,
            compare="best",
        ),
        searcher=RandomSearch(),
        storage=storage,
        name=name,
        seed=seed,
    )


def main() -> None:
    """Prepare the data, run or resume the study, and print its results."""
    options = _options()
    profile = PROFILES[options.profile]
    name = options.name or f"adsorption-{profile.name}"
    prepare(profile.name)
    study = make_study(profile, name, options.storage, options.seed)
    known = study.path.exists() and study.result().num_trials
    if known:
        print(f"{study.path} has {known} trials already: resuming it")
    result = (study.resume if known else study.run)(
        time_budget=options.time_budget,
        resources={"cpu": 1, "gpu": options.gpu} if options.gpu else None,
    )
    tell(result, study, profile)


def tell(result: Result, study: Study, profile: Profile) -> None:
    """Print the best configuration, and its errors next to those of baselines."""
    if not result.has_reports:
        print("no trial has reported yet: give a longer --time-budget")
        return
    best = result.best_trial
    data = load(profile.space())
    guesses = baselines(data)
    tested = test_error(best.config, result.checkpoint())
    counts: dict[Any, int] = result.trials()["status"].value_counts().to_dict()
    print()
    print(f"{result.num_trials} trials: {', '.join(f'{n} {s}' for s, n in counts.items())}")
    print(f"best: trial {best.id}, {best.status.value} at epoch {best.resource}")
    for hyperparameter in profile.domains:
        value = best.config[hyperparameter]
        print(
            f"  {hyperparameter:12} {value:.4g}"
            if isinstance(value, float)
            else f"  {hyperparameter:12} {value}"
        )
    print()
    print("mean absolute error, eV      validation   test")
    labels = {"global_median": "median of all", "adsorbate_median": "median per adsorbate"}
    for key, errors in guesses.items():
        print(f"  {labels[key]:25} {errors['validation']:10.3f} {errors['test']:6.3f}")
    print(f"  {'this network, best epoch':25} {result.best_value:10.3f} {tested:6.3f}")
    print()
    print(f"results    {study.path} (journal.jsonl, checkpoints.zarr)")
    print(f"inspect    daskhpo status {study.path}; daskhpo best {study.path} -k 5")
    print(f"in Python  daskhpo.load_study({str(study.path)!r}).trials()")
    print("continue   the same command again; --name ANOTHER starts another study")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="laptop")
    parser.add_argument("--time-budget", default="120s", help="default: 120s")
    parser.add_argument("--gpu", type=float, default=0, help="GPUs per trial, or a fraction")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", default="runs", help="directory of studies; default: runs")
    parser.add_argument("--name", help="name of the study; default: adsorption-PROFILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
