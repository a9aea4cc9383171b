"""A TCP proxy on 127.0.0.1 that can cut and slow what runs through it."""

import asyncio
import socket
import struct
import threading
from types import TracebackType

CHUNK = 1 << 16


class Proxy:
    """Forwards a free port (`port`) to `target`, a host:port, for the time of a `with` block.

    `delay` is in seconds, added to every chunk in both directions. An event loop in a thread does the work.
    """

    def __init__(self, name: str, target: str) -> None:
        self.name = name
        self.host, _, port = target.rpartition(":")
        self.target_port = int(port)
        self.delay = 0.0
        self.port = 0
        self.connections = 0  # accepted so far
        self._open: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{name}", daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._server = self._do(self._listen())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._do(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset what is open and, as soon as it is there, what comes."""
        self._do(self._set_refusing(True))

    def restore(self) -> None:
        self._do(self._set_refusing(False))

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._refusing:
            _reset(writer)
            return
        try:
            there_reader, there_writer = await asyncio.open_connection(self.host, self.target_port)
        except OSError:
            _reset(writer)  # nobody listens behind us: look like it
            return
        pair = {writer, there_writer}
        self._open |= pair
        if self._refusing:  # cut while we were connecting
            await self._set_refusing(True)
        try:
            await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer))
        finally:
            self._open -= pair

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while chunk := await source.read(CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                sink.write(chunk)
                await sink.drain()
        except OSError:
            sink.transport.abort()
        finally:
            sink.close()

    async def _set_refusing(self, refusing: bool) -> None:
        self._refusing = refusing
        for writer in self._open if refusing else ():
            _reset(writer)

    async def _shut(self) -> None:
        await self._set_refusing(True)
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _do(self, work: "asyncio.Future[None] | object") -> "asyncio.Server":
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)  # type: ignore[arg-type]


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST, as a broken network does; a mere close would look like an orderly end."""
    if not writer.transport.is_closing():
        no_lingering = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_lingering)
    writer.transport.abort()
