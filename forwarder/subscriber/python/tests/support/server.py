"""A real nats-server, and a proxy before it that can stop what comes out."""

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import nats
from nats.aio.client import Client as NatsClient


def binary() -> str:
    named = os.environ.get("NATS_SERVER")
    if named:
        return named
    found = sorted(Path.home().glob(".cache/fanout-e2e/nats-server-*/nats-server"))
    assert found, "there is no nats-server: set NATS_SERVER to its path, or run `cargo e2e setup`"
    return str(found[-1])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Server:
    def __init__(self, *arguments: str) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> "Server":
        self._process = subprocess.Popen(
            [binary(), "-a", "127.0.0.1", "-p", str(self.port), *self._arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(200):
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return self
            assert self._process.poll() is None, "nats-server has ended"
            await asyncio.sleep(0.02)
        raise AssertionError("nats-server does not listen")

    async def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            await asyncio.get_running_loop().run_in_executor(None, self._process.wait)
            self._process = None

    async def client(self) -> NatsClient:
        async def quiet(error: Exception) -> None:
            """Servers are stopped on purpose."""

        return await nats.connect(self.url, max_reconnect_attempts=-1, reconnect_time_wait=1, error_cb=quiet)


class Proxy:
    """Passes bytes on. While it is paused, nothing of the server reaches the client."""

    def __init__(self, server: Server) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._server = server
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_cut = False
        self._listener: asyncio.Server | None = None

    async def start(self) -> "Proxy":
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    def pause(self) -> None:
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    async def cut(self) -> None:
        """End all connections, and refuse further ones."""
        self._is_cut = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def heal(self) -> None:
        self._is_cut = False

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        for source, sink, gate in ((reader, far_writer, False), (far_reader, writer, True)):
            task = asyncio.get_running_loop().create_task(self._copy(source, sink, gate))
            self._tasks.add(task)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: bool) -> None:
        try:
            while data := await source.read(65536):
                if gate:
                    await self._open.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


async def stop_all(things: Iterable[Server | Proxy]) -> None:
    for thing in things:
        await thing.stop()
