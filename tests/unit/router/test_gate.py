from dataclasses import replace

import pytest

from serving.domain.request import Deadline, Priority, Request
from serving.router.admission import Limits, Permit, Refusal, TooShort
from serving.router.gate import UNKNOWN_S, Gate
from tests.unit.router.simulation import IMAGE, PROMPT

LIMITS = Limits(parallel=1, places=100, bulk_places=50, max_wait_s=0.05, max_bulk_wait_s=2.0)
PROMPT_S, IMAGE_S = 0.01, 0.2
INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


def request(task=PROMPT, priority=INTERACTIVE, tenant="t", at_s=0.0):
    return Request(task, Deadline(at_s + 60), "r", priority=priority, tenant=tenant)


def taught(limits=LIMITS):
    """A gate that has seen one prompt and one image, empty at 0 s."""
    gate = Gate("adaptive", limits)
    for task, stage, seconds in ((PROMPT, "decode_mask", PROMPT_S), (IMAGE, "encode", IMAGE_S)):
        permit, _ = gate.enter(request(task, at_s=-9), -9)
        gate.leave(permit, -9 + seconds, {stage: seconds})
    return gate


def enter(gate, *args, at_s=0.0, **kwargs):
    permit, load = gate.enter(request(*args, at_s=at_s, **kwargs), at_s)
    assert isinstance(permit, Permit), permit
    return permit, load


def wait_s(gate, task=PROMPT, priority=INTERACTIVE, at_s=0.0):
    load = gate.enter(request(task, priority, at_s=at_s), at_s)[1]
    return load.ahead_s, load.begun_s


def test_without_any_measurement_only_the_places_count():
    gate = Gate("adaptive", replace(LIMITS, places=30))
    for _ in range(30):
        enter(gate)
    refusal, load = gate.enter(request(), 0.0)
    assert (refusal.reason, refusal.retry_after_s, load.ahead_s) == ("pool_full", UNKNOWN_S, 0)


def test_a_prompt_does_not_wait_for_an_image_but_an_image_for_prompts():
    gate = taught()
    enter(gate, IMAGE)
    assert enter(gate)[1].ahead_s == 0
    assert wait_s(gate, IMAGE) == (pytest.approx(IMAGE_S + PROMPT_S), 0)


def test_interactive_goes_before_bulk_but_does_not_interrupt_it():
    gate = taught()
    for _ in range(5):
        enter(gate, PROMPT, BULK)
    assert wait_s(gate) == (0, pytest.approx(PROMPT_S))
    assert wait_s(gate, PROMPT, BULK)[0] == pytest.approx(6 * PROMPT_S)


def test_work_that_has_begun_counts_for_what_is_left_of_it():
    gate = taught()
    enter(gate, IMAGE)
    assert wait_s(gate, IMAGE, at_s=0.15)[0] == pytest.approx(0.05)
    assert wait_s(gate, IMAGE, at_s=5.0)[0] == pytest.approx(IMAGE_S), "the first is late: it counts no more, the second does"


def test_the_service_time_is_what_passed_since_the_engine_was_free():
    gate = taught()
    first, _ = enter(gate)
    second, _ = enter(gate)
    gate.leave(first, 0.02, {"decode_mask": 0.02})
    gate.leave(second, 0.04, {"decode_mask": 0.04})
    assert enter(gate, at_s=1.0)[0].service_s == pytest.approx((PROMPT_S + 0.02 + 0.02) / 3)


def test_a_pool_that_grows_takes_more_at_once_and_lets_go_what_it_began_when_it_shrinks():
    size = [LIMITS]
    gate = Gate("adaptive", LIMITS, resized=lambda: size[0])
    permit, _ = enter(gate, IMAGE, at_s=-9)
    gate.leave(permit, -9 + IMAGE_S, {"encode": IMAGE_S})
    inside = [enter(gate, IMAGE)[0]]
    assert isinstance(gate.enter(request(IMAGE), 0.0)[0], Permit), "as long as its own service and a little more"
    assert isinstance(gate.enter(request(IMAGE), 0.0)[0], Refusal)
    size[0] = replace(LIMITS, parallel=3)
    inside.append(enter(gate, IMAGE)[0])
    assert wait_s(gate, IMAGE) == (pytest.approx(IMAGE_S), 0), "three are worked on"
    size[0] = LIMITS
    for permit in inside:
        gate.leave(permit, IMAGE_S, {"encode": IMAGE_S})
    assert wait_s(gate, IMAGE, at_s=IMAGE_S)[0] == pytest.approx(IMAGE_S), "one is late, one waits"


def test_engines_that_take_several_at_once():
    gate = taught(replace(LIMITS, parallel=4))
    for expected_s in (0, 0, 0, 0, PROMPT_S, 5 * PROMPT_S / 4):
        assert enter(gate)[1].ahead_s == pytest.approx(expected_s)


@pytest.mark.parametrize(("task", "priority"), [(PROMPT, INTERACTIVE), (IMAGE, INTERACTIVE), (PROMPT, BULK), (IMAGE, BULK)])
def test_who_comes_back_when_told_is_let_in(task, priority):
    gate = taught()
    inside = []
    while isinstance((verdict := gate.enter(request(task, priority), 0.0)[0]), Permit):
        inside.append(verdict)
    now_s = 0.0
    later_s = verdict.retry_after_s + 1e-6
    assert 0 < later_s <= IMAGE_S + 2e-6
    service_s = inside[0].service_s
    while inside and now_s + service_s <= later_s:
        now_s += service_s
        gate.leave(inside.pop(0), now_s, None)
    enter(gate, task, priority, at_s=later_s)


def test_an_answer_that_failed_teaches_nothing_and_gives_its_place_back():
    gate = taught()
    permit, _ = enter(gate)
    gate.leave(permit, 50.0)
    assert len(gate) == 0
    assert enter(gate, at_s=60.0)[0].service_s == pytest.approx(PROMPT_S)


def test_a_tenant_that_floods_leaves_room_for_another():
    gate = taught(replace(LIMITS, tenant_share=0.5))
    while isinstance((verdict := gate.enter(request(tenant="flood"), 0.0)[0]), Permit):
        pass
    assert verdict.reason == "over_quota"
    enter(gate, tenant="other")


def test_who_asks_for_an_image_that_is_being_encoded_brings_only_a_mask():
    """Thirty such would be refused if each brought an encode: 30 x 0.2 s is far above the bound."""
    gate = taught()
    inside = [gate.enter(request(IMAGE), 0.0, "one image")[0] for _ in range(5)]
    assert [each.work.items for each in inside] == [1, 0, 0, 0, 0]
    _, load = gate.enter(request(IMAGE), 0.0, "one image")
    assert load.service_s == pytest.approx(IMAGE_S + PROMPT_S, rel=0.3)
    others = [gate.enter(request(IMAGE), 0.0, f"image {n}")[0] for n in range(3)]
    assert isinstance(others[-1], Refusal)


def in_time(gate, seconds, image="", task=IMAGE):
    return gate.enter(Request(task, Deadline(seconds), "r", tenant="t"), 0.0, image)[0]


def test_whose_deadline_an_empty_line_would_meet_comes_back_and_whose_not_does_not():
    gate = taught(replace(LIMITS, max_wait_s=60))
    enter(gate, IMAGE)
    enter(gate, IMAGE)
    assert in_time(gate, 1.1 * IMAGE_S).reason == "deadline"
    assert in_time(gate, 0.9 * IMAGE_S) == TooShort(pytest.approx(IMAGE_S))


def test_an_image_that_another_encodes_is_known_to_who_comes_back():
    gate = taught(replace(LIMITS, max_wait_s=60))
    gate.enter(request(IMAGE), 0.0, "one image")
    assert in_time(gate, 2 * PROMPT_S, "one image").reason == "deadline"
    assert isinstance(in_time(gate, 2 * PROMPT_S, "another"), TooShort)


def test_with_nothing_ahead_any_deadline_may_try():
    assert isinstance(in_time(taught(), 0.5 * IMAGE_S), Permit)


def test_a_slow_model_is_refused_by_its_own_cost_and_a_quick_one_is_not():
    gate = Gate("adaptive", replace(LIMITS, max_wait_s=60))
    for model, seconds in (("slow", 9.0), *(("quick", IMAGE_S),) * 20):
        permit, _ = gate.enter(request(IMAGE, at_s=-9).with_model(model), -9)
        gate.leave(permit, -9 + seconds, {"encode": seconds})
    inside = [gate.enter(request(IMAGE).with_model("slow"), 0.0)[0] for _ in range(7)]
    assert [isinstance(each, Permit) for each in inside] == [True] * 6 + [False], "6 x 9 s fit in 60 s, 7 x 9 s do not"
    assert (inside[-1].reason, inside[-1].retry_after_s) == ("deadline", pytest.approx(3.0))
    assert gate.enter(request(IMAGE).with_model("quick"), 0.0)[1].ahead_s == pytest.approx(54.0)


def test_an_encode_is_shared_with_those_who_ask_the_same_model():
    gate = taught()
    named = [gate.enter(request(IMAGE).with_model(model), 0.0, "one image")[0] for model in ("a", "a", "b")]
    assert [each.work.items for each in named] == [1, 0, 1]
