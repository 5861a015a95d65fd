import asyncio
from types import SimpleNamespace
from typing import Any, cast

from nats.aio.msg import Msg

from fanout_client.aio.tap import Tap


def test_a_tap_is_drained_when_all_that_had_arrived_is_taken_or_dropped() -> None:
    async def scenario() -> None:
        taken: list[Msg] = []
        tap = Tap("PLC-1.*", taken.append)
        tap.connected(cast(Any, SimpleNamespace(delivered=3)))
        message = cast(Msg, None)
        await tap.on_message(message)
        waiting = asyncio.ensure_future(tap.drained())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done(), "two are still in the connection's queue"
        tap.dropped += 1
        await tap.on_message(message)
        await asyncio.wait_for(waiting, 1)
        assert len(taken) == 2

        # A connection that is lost has nothing more to take.
        tap.connected(cast(Any, SimpleNamespace(delivered=1)))
        waiting = asyncio.ensure_future(tap.drained())
        await asyncio.sleep(0)
        tap.connected(None)
        await asyncio.wait_for(waiting, 1)

    asyncio.run(scenario())
