"""A connection over TCP or TLS for httpcore, on asyncio alone.

httpcore's own goes through anyio, which costs a third of a call's processor time. Here what is written waits until an answer is read, so
that a request of a head and a small body is one packet, and what the server sends lies ready when it is asked for.
"""

import asyncio
import socket
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

HELD = 64 * 1024         # bytes that wait to be sent together
AHEAD = 1 << 20          # bytes received and not yet read, over which the server has to wait


class Stream(asyncio.Protocol, httpcore.AsyncNetworkStream):
    """One connection. Only one task may read or write at a time, as httpcore does."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._held, self._data = bytearray(), bytearray()
        self._ended = self._full = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    # --- asyncio's side
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > AHEAD:
            self._transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> bool:
        self._ended = True
        _wake(self._reader)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended, self._error, self._full = True, exc, False
        _wake(self._reader)
        _wake(self._writer)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        _wake(self._writer)

    # --- httpcore's side
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """At most so many bytes, b'' at the end. Raises httpcore.ReadError where the connection broke, ReadTimeout."""
        self._flush()
        while not self._data and not self._ended:
            self._reader = asyncio.get_running_loop().create_future()
            await _within(self._reader, timeout, httpcore.ReadTimeout)
        if not self._data and self._error:
            raise httpcore.ReadError(str(self._error)) from self._error
        found = bytes(self._data[:max_bytes])
        del self._data[:max_bytes]
        if len(self._data) <= AHEAD and not self._ended:
            self._transport.resume_reading()
        return found

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send with what waits already, at the latest when an answer is read. Raises httpcore.WriteError, WriteTimeout."""
        self._held += buffer
        if len(self._held) < HELD:
            return
        self._flush()
        while self._full:
            self._writer = asyncio.get_running_loop().create_future()
            await _within(self._writer, timeout, httpcore.WriteTimeout)
        if self._error:
            raise httpcore.WriteError(str(self._error)) from self._error

    def _flush(self) -> None:
        if self._held and not self._transport.is_closing():
            self._transport.write(bytes(self._held))
        self._held.clear()

    async def aclose(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self._flush()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                self._transport = await loop.start_tls(self._transport, self, ssl_context, server_hostname=server_hostname)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:                                # of which ssl.SSLError is one
            raise httpcore.ConnectError(str(error)) from error
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":                               # an idle connection that is has been closed, or has something nobody asked
            return self._ended or bool(self._data)
        names = {"client_addr": "sockname", "server_addr": "peername"}
        return self._transport.get_extra_info(names.get(info, info))


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


async def _within(waiting: asyncio.Future[None], timeout: float | None, error: type[Exception]) -> None:
    try:
        async with asyncio.timeout(timeout):
            await waiting
    except TimeoutError as late:
        raise error(str(late)) from late


class Backend(httpcore.AsyncNetworkBackend):
    """For `network_backend` of httpcore's connections."""

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                _, stream = await loop.create_connection(Stream, host, port, local_addr=(local_address, 0) if local_address else None,
                                                         happy_eyeballs_delay=0.25)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        found: socket.socket = stream.get_extra_info("socket")
        for option in socket_options or ():
            found.setsockopt(*option)
        return stream

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
