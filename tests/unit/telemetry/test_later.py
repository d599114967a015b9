import asyncio

from serving.telemetry.later import after_answer


async def test_it_is_done_when_the_loop_comes_round_again():
    done = []
    after_answer(done.append, 1)
    assert done == []
    await asyncio.sleep(0)
    assert done == [1]


async def test_a_failure_is_told_without_what_it_was_about(caplog):
    def fail(patient):
        raise ValueError(patient)

    after_answer(fail, "Doe^Jane")
    await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.name == "serving.telemetry.later"
    assert record.exc_info[0] is ValueError
    assert "Doe" not in record.getMessage()
