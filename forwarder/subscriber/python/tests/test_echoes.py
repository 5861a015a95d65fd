"""Messages to ourselves: only who has sent them can know their names."""

import asyncio

import nats.errors
import pytest

from fanout_client.aio.echoes import Echoes
from fanout_client.aio.tasks import Tasks


def test_an_echo_that_is_guessed_ends_no_round() -> None:
    async def scenario() -> None:
        tasks, sent = Tasks(), asyncio.Queue[str]()

        async def send(token: str) -> None:
            sent.put_nowait(token)

        echoes = Echoes(0.3, tasks, send)
        for _ in range(2):
            waiting = asyncio.create_task(echoes.round())
            await sent.get()
            assert not any(echoes.take(f"e{number}") for number in range(100))
            with pytest.raises(nats.errors.TimeoutError):
                await waiting
        waiting = asyncio.create_task(echoes.round())
        assert echoes.take(await sent.get())
        await waiting
        await tasks.close()

    asyncio.run(scenario())
