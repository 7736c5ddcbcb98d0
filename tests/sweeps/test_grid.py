"""The grid of a sweep: all combinations, at least one and not too many."""

from types import SimpleNamespace
from typing import Any

import pytest

from sdx import InputError
from sdx.sweeps.sweeper import GridSweeper


def launched(*arguments: str, params: dict[str, str] | None = None, size: int | None = None) -> list[Any]:
    """The batches that the launcher gets: the number of the first run, and the runs."""
    sweeper = GridSweeper(size, params)
    batches: list[Any] = []
    sweeper.hydra_context = SimpleNamespace(config_loader=None)  # type: ignore[assignment]
    launch = lambda runs, initial_job_idx: batches.append((initial_job_idx, runs))  # noqa: E731
    sweeper.launcher = SimpleNamespace(launch=launch)  # type: ignore[assignment]
    sweeper.sweep(list(arguments))
    return batches


def test_all_combinations_in_order_and_the_command_line_before_params():
    assert launched("seed=1,2", "method=sft", params={"lang": "th,sw", "method": "none"}) == [
        (
            0,
            [
                ["lang=th", "method=sft", "seed=1"],
                ["lang=th", "method=sft", "seed=2"],
                ["lang=sw", "method=sft", "seed=1"],
                ["lang=sw", "method=sft", "seed=2"],
            ],
        )
    ]
    assert launched("seed=range(0,5)", size=2) == [
        (0, [["seed=0"], ["seed=1"]]),
        (2, [["seed=2"], ["seed=3"]]),
        (4, [["seed=4"]]),
    ]
    assert launched() == [(0, [[]])]
    assert launched("a='x,y'", "b=[1,2],[3]", "+c=1,2", "~d")[0][1][0] == ["a='x,y'", "b=[1,2]", "+c=1", "~d"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("seed=range(0,0)",), r"seed=range\(0,0\) gives no value"),
        (("lang=th", "seed=range(5,1)"), r"seed=range\(5,1\) gives no value"),
        (("seed=range(0,1000000000000)",), "more than 100000 runs"),
        (("seed=range(0,1000)", "scale.epochs=range(1,1000)"), "more than 100000 runs"),
        (("train.learning_rate=interval(0,1)",), r"interval\(0,1\) names no values .* hydra/sweeper=optuna"),
    ],
)
def test_a_sweep_without_runs_or_without_end(arguments: tuple[str, ...], message: str):
    with pytest.raises(InputError, match=message):
        launched(*arguments)
