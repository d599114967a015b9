import math

import pytest

from serving.bench.figures import Result, Series, Spread, Table, Times, Verdict, percentile, result


@pytest.mark.parametrize(("q", "found"), [(0, 1), (50, 2.5), (100, 4), (95, 3.85)])
def test_percentiles_interpolate_between_ranks(q, found):
    assert percentile([4, 1, 3, 2], q) == pytest.approx(found)


def test_percentiles_of_one_and_of_nothing():
    assert percentile([7], 99) == 7
    assert math.isnan(percentile([], 50))


def test_times_are_milliseconds():
    times = Times.of([0.010, 0.020, 0.030])
    assert (times.count, times.p50_ms, times.max_ms) == (3, pytest.approx(20), pytest.approx(30))
    assert Times.of([]).count == 0


def test_a_spread_is_median_and_range():
    assert Spread.of([3.0, 1.0, 2.0]).text() == "2.0 (1.0 to 3.0)"


def test_verdicts_on_both_sides():
    assert Verdict("p95", 10.0, 10.0, "<=", "ms").passed
    assert not Verdict("rate", 0.7, 0.75, ">=").passed
    assert Verdict("rate", 0.7, 0.75, ">=", "x", 2, "7 of 10").line() == (
        "MISS  rate: measured 0.70 x, target >= 0.75 x  (7 of 10)"
    )


@pytest.mark.parametrize("side", ["<=", ">="])
def test_what_was_not_measured_does_not_pass(side):
    assert not Verdict("p95", math.nan, 1.0, side).passed


def test_a_result_survives_json():
    found = Result(
        "s1", "S1", [Verdict("a", 1, 2, "<=")], [Table("t", ("x", "y"), [("1", "2")])],
        [Series("p", "k", "ms", [1, 2], {"p50": [1.0, 2.0]})], ["a note"], {"n": 1},
    )  # fmt: skip
    again = result(found.json())
    assert again == found
    assert again.passed
