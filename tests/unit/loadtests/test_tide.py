"""What a run of `tests/autoscaling.py` says of itself."""

import pytest
from tide import Call, Look, stretches, table, verdicts


def run(overload_ms=900, recovered_ms=110, back=1):
    """100 s: 2 users, 10 between 20 and 70 s, a call a second each; 3 replicas between 30 and 85 s."""

    def replicas(second):
        return 3 if 30 <= second < 85 else back if second >= 85 else 1

    def ms(second):
        return 100 if not 20 <= second < 70 else overload_ms if second < 30 else recovered_ms

    looks = [Look(second, replicas(second), 1.5 * second, [(10 * second, 5 * second)]) for second in range(100)]
    calls = [
        Call(second + 0.5 + ms(second) / 1000, 10 if 20 <= second < 70 else 2, "HTTP", "prompt", ms(second), None)
        for second in range(100)
    ]
    return looks, calls


def test_the_stretches_follow_the_users_and_the_replicas():
    found = [(round(each.since_s), round(each.until_s)) for each in stretches(*run())]
    assert found == [(10, 20), (20, 30), (30, 55), (55, 71), (71, 85), (85, 100)]
    assert "| all users, 3 replicas | 55 to 71 | 1.0 | 0 | 0 | 0 | 110 | 110 | - | 50 | 1.50 |" in table(*run())


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        ({}, [True, True, True, True]),
        ({"recovered_ms": 300}, [True, True, False, True]),
        ({"back": 2}, [True, False, True, True]),
    ],
)
def test_what_is_wanted_is_judged(said, passed):
    assert [verdict.passed for verdict in verdicts(*run(**said))] == passed


def test_a_call_without_an_answer_is_seen():
    looks, calls = run()
    lost = Call(50.0, 10, "HTTP", "prompt", 30000, "504 deadline_exceeded")
    refused = Call(51.0, 10, "refused", "prompt: 503 pool_full", 0, None)
    found = verdicts(looks, [*calls, lost, refused])[-1]
    assert (found.measured, found.passed) == (1, False)
