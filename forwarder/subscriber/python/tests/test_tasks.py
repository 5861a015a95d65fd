import asyncio

import pytest

from fanout_client.aio.tasks import Tasks


def test_tasks_end_also_where_a_cancellation_is_lost() -> None:
    async def scenario() -> None:
        tasks = Tasks()
        lost = 0

        async def loses_the_first() -> None:
            nonlocal lost
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    lost += 1
                    if lost == 2:
                        raise

        tasks.spawn(loses_the_first())
        await asyncio.sleep(0)
        await asyncio.wait_for(tasks.close(), 5)
        assert lost == 2
        tasks.spawn(loses_the_first())
        assert lost == 2, "nothing begins after the end"

    asyncio.run(scenario())


def test_what_a_task_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async def fails() -> None:
            raise RuntimeError("a fault of the client")

        tasks = Tasks()
        tasks.spawn(fails())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await tasks.close()

    asyncio.run(scenario())
    assert "a fault of the client" in caplog.text
