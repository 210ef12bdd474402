"""Contract tests of searchers, to inherit.

::

    class TestMySearcher(SearcherContract):
        @pytest.fixture
        def make(self):
            return lambda **options: MySearcher(**options)
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from daskhpo.core.domains import Categorical, Integer, Ordinal, Real
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Space
from daskhpo.core.types import Report, Status, Trial

MakeSearcher = Callable[..., Searcher]


def a_space() -> Space:
    """Return a space with one hyperparameter of each kind, and a constant."""
    return Space(
        {
            "lr": Real(1e-4, 1e-1, log=True),
            "layers": Integer(1, 4),
            "optimizer": Categorical(["sgd", "adam"]),
            "batch_size": Ordinal([40, 61, 79]),
            "epochs": 9,
        }
    )


def a_point(lr: float = 1e-3, **others: Any) -> dict[str, Any]:
    """Return a configuration in :func:`a_space`."""
    return {"lr": lr, "layers": 2, "optimizer": "adam", "batch_size": 61, "epochs": 9, **others}


def search(searcher: Searcher, n: int, first: int = 0) -> list[Any]:
    """Return suggestions for ``n`` trials in turn, each of which reports and ends."""
    configs = []
    for number in range(first, first + n):
        while (lesson := searcher.lesson()) is not None:
            searcher.learn(lesson())
        config = searcher.suggest(number)
        configs.append(config)
        if config is not None:
            searcher.on_start(number, config)
            loss = abs(config["lr"] - 0.01) + config["layers"]
            trial = Trial(number, config, Status.RUNNING, until=1, resource=1, best_loss=loss)
            searcher.observe(trial, Report(1, (loss,), loss))
            searcher.on_end(trial._replace(status=Status.COMPLETED))
    return configs


class SearcherContract:
    """Contract of searchers, to inherit by a test class with a fixture ``make``.

    ``make`` is a function that takes ``points_to_evaluate`` and returns a new searcher. ``n`` is
    the number of suggestions in the tests; lower it for a slow searcher.
    """

    n = 30

    @pytest.fixture
    def make(self) -> MakeSearcher:
        """Return a function that takes ``points_to_evaluate`` and returns a new searcher."""
        raise NotImplementedError("define a fixture `make` in the test class")

    @pytest.fixture
    def ready(self, make: MakeSearcher) -> Callable[..., Searcher]:
        """Return a function that makes a searcher and calls its ``setup``."""

        def build(seed: int = 0, space: Space | None = None, **options: Any) -> Searcher:
            searcher = make(**options)
            searcher.setup(space or a_space(), seed)
            return searcher

        return build

    def test_suggestions_lie_in_the_space(self, ready: Callable[..., Searcher]) -> None:
        space = a_space()
        for config in search(ready(), self.n):
            assert space.complete(config) == config
            assert list(config) == list(space)

    def test_suggestions_survive_json(self, ready: Callable[..., Searcher]) -> None:
        for config in search(ready(), self.n):
            back = json.loads(json.dumps(config))
            assert [(type(v), v) for v in back.values()] == [(type(v), v) for v in config.values()]

    def test_the_same_seed_gives_the_same_suggestions(self, ready: Callable[..., Searcher]) -> None:
        assert search(ready(seed=3), self.n) == search(ready(seed=3), self.n)

    def test_points_to_evaluate_come_first_and_in_order(
        self, ready: Callable[..., Searcher]
    ) -> None:
        points = [a_point(0.02), a_point(0.01, layers=4)]
        assert search(ready(points_to_evaluate=points), 3)[:2] == points

    def test_points_need_not_repeat_the_constants(self, ready: Callable[..., Searcher]) -> None:
        short = a_point()
        del short["epochs"]
        assert ready(points_to_evaluate=[short]).suggest(0) == a_point()

    @pytest.mark.parametrize(
        ("point", "message"),
        [
            (a_point(lr=0.5), "lr=0.5 is not in Real"),
            (a_point(layers=2.5), "layers=2.5 is not in Integer"),
            (a_point(batch_size=50), "batch_size=50 is not in Ordinal"),
            (a_point(optimizer="lbfgs"), "optimizer='lbfgs' is not in Categorical"),
            (a_point(epochs=10), "epochs=10 but the space fixes it at 9"),
            (a_point(typo=1), r"unknown names \['typo'\]"),
            ({"lr": 1e-3}, "missing names"),
        ],
    )
    def test_a_wrong_point_is_refused_at_setup(
        self, make: MakeSearcher, point: dict[str, Any], message: str
    ) -> None:
        searcher = make(points_to_evaluate=[a_point(), point])
        with pytest.raises(ValueError, match=message):
            searcher.setup(a_space(), 0)

    def test_one_point_instead_of_a_list_is_refused(self, make: MakeSearcher) -> None:
        with pytest.raises(TypeError, match="must be a list of dicts"):
            make(points_to_evaluate=a_point()).setup(a_space(), 0)

    def test_a_copy_goes_on_like_the_original(self, ready: Callable[..., Searcher]) -> None:
        searcher = ready()
        search(searcher, self.n // 2)
        twin = copy.deepcopy(searcher)
        rest = [search(s, self.n // 2, first=self.n // 2) for s in (searcher, twin)]
        assert rest[0] == rest[1]

    def test_one_object_may_describe_two_studies(self, make: MakeSearcher) -> None:
        searcher = make()
        both = [copy.deepcopy(searcher) for _ in range(2)]
        for one in both:
            one.setup(a_space(), 1)
        assert search(both[0], self.n) == search(both[1], self.n)

    def test_a_suggestion_belongs_to_its_receiver(self, ready: Callable[..., Searcher]) -> None:
        spoilt, clean = (ready(points_to_evaluate=[a_point()]) for _ in range(2))
        spoilt.suggest(0)["lr"] = "spoilt"  # type: ignore[index]
        assert search(spoilt, 3) == search(clean, 3)

    def test_none_means_exhausted_for_good(self, ready: Callable[..., Searcher]) -> None:
        space = Space({"lr": Ordinal([0.1, 0.2]), "layers": Ordinal([1, 2])})
        try:
            searcher = ready(space=space)
        except ValueError:
            pytest.skip("the searcher cannot search this space")
        configs = search(searcher, 12)
        n_given = len([config for config in configs if config is not None])
        assert configs[n_given:] == [None] * (12 - n_given)

    def test_failed_trials_do_not_stop_the_search(self, ready: Callable[..., Searcher]) -> None:
        searcher = ready()
        for number in range(5):
            config = searcher.suggest(number)
            assert config is not None
            searcher.on_start(number, config)
            searcher.on_end(Trial(number, config, Status.FAILED, until=1))
        assert searcher.suggest(5) is not None

    def test_its_repr_names_its_parameters(self, make: MakeSearcher) -> None:
        assert type(make()).__name__ in repr(make())
        assert " at 0x" not in repr(make())
        assert "0.02" in repr(make(points_to_evaluate=[a_point(0.02)]))
