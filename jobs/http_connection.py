"""Calls over HTTP/1.1, with TLS and proxies: asyncio's transport below, the parser of llhttp (httptools) above.

No client of the shelf, since an answer that waits for the processor is a call that is not in flight: httpcore with h11 takes three times
as much of it for a call, and a client that awaits its answer cannot send the next request before it reads this one.
"""

import asyncio
import base64
import ssl
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast
from urllib.parse import SplitResult, quote, unquote, urlsplit

import certifi
import httptools

from gristmill.udfs.errors import RecipeError

T = TypeVar("T")
PORTS = {"http": 80, "https": 443}
ASIS = "%/?:@!$&'()*+,;=~[]"        # in a path and a query


class Broken(Exception):
    """There is no whole answer: the connection broke, or what came is no HTTP."""


class Overlong(Exception):
    """An answer of more bytes than are allowed."""


@dataclass(frozen=True)
class Response:
    """`headers` by their names in small letters; of a name that comes twice the last."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Server:
    """Where calls of a URL go: straight there, or by the proxy of the environment (HTTPS_PROXY, ALL_PROXY, NO_PROXY, …).

    Raises RecipeError for a URL or a proxy that is not http or https.
    """

    url: str
    context: ssl.SSLContext | None = None          # of TLS; the system's and certifi's certificates where there is none

    def __post_init__(self) -> None:
        for parts in (self._parts, self._proxy):
            try:
                fine = not parts or (parts.scheme in PORTS and (parts.hostname or "").encode("idna") and parts.port != 0)
            except ValueError:                     # a port that is none; a name that no host can have, which is a UnicodeError
                fine = False
            if parts and not fine:
                place = parts.netloc.rpartition("@")[2]
                raise RecipeError(f"{parts.scheme}://{place}: no address of a server, or of a proxy, over http or https")

    @cached_property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)

    @cached_property
    def _proxy(self) -> SplitResult | None:
        there = urllib.request.getproxies()
        said = there.get(self._parts.scheme) or there.get("all")
        if not said or urllib.request.proxy_bypass(self._parts.hostname or ""):
            return None
        return urlsplit(said if "://" in said else f"http://{said}")

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        if self.context:
            return self.context
        made = ssl.create_default_context()
        made.load_verify_locations(certifi.where())
        return made

    @cached_property
    def _host(self) -> str:
        host = (self._parts.hostname or "").encode("idna").decode()
        return f"[{host}]" if ":" in host else host

    @cached_property
    def _place(self) -> str:
        return self._host + (f":{self._parts.port}" if self._parts.port else "")

    def _authorization(self) -> dict[str, str]:
        if self._proxy is None or not self._proxy.username:
            return {}
        words = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
        return {"Proxy-Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}

    def head(self, headers: Mapping[str, str]) -> bytes:
        """A POST's lines up to the number of `Content-Length`."""
        path = quote(f"{self._parts.path or '/'}{'?' if self._parts.query else ''}{self._parts.query}", safe=ASIS)
        relayed = self._proxy is not None and self._parts.scheme == "http"
        lines = {"Host": self._place, **headers, **(self._authorization() if relayed else {})}
        target = f"http://{self._place}{path}" if relayed else path
        said = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"POST {target} HTTP/1.1\r\n{said}Content-Length: ".encode("latin-1")

    async def connect(self) -> "Connection":
        """A new connection. Raises OSError, of which socket.gaierror and ssl.SSLError are two."""
        hop, loop = self._proxy or self._parts, asyncio.get_running_loop()
        # uvloop, on which Ray's actors run where it is installed, has no happy eyeballs.
        eyeballs: dict[str, Any] = {"happy_eyeballs_delay": 0.25} if isinstance(loop, asyncio.BaseEventLoop) else {}
        _, made = await loop.create_connection(Connection, hop.hostname or "", hop.port or PORTS[hop.scheme],
                                               ssl=self._tls if hop.scheme == "https" else None, **eyeballs)
        if self._proxy is not None and self._parts.scheme == "https":
            place, host = f"{self._host}:{self._parts.port or PORTS['https']}", cast(str, self._parts.hostname)
            try:
                await made.tunnel(place, self._authorization(), self._tls, host)
            except BaseException:
                made.close()
                raise
        return made


def _itself(response: Response) -> Response:
    return response


class Connection(asyncio.Protocol):
    """One connection, for one call at a time. `usable`: nothing broke it, and the server has not closed it."""

    def __init__(self) -> None:
        self.usable = False
        self._transport: Any = None
        self._waiting: asyncio.Future[Any] | None = None
        self._parser: Any = None
        self._fields, self._body = list[tuple[bytes, bytes]](), bytearray()
        self._room, self._headed, self._tunnels = 0, False, False
        self._read: Callable[[Response], Any] = _itself

    async def post(self, head: bytes, content: bytes, largest: int, whole: Callable[[Response], T]) -> T:
        """What `whole` makes of the response to `content` behind a Server's head, the moment the last byte is here.

        It may let the next call begin, on this connection too, before this one's caller goes on. Raises what it raises, Broken, and
        Overlong where the response has more bytes than `largest`.
        """
        found: T = await self._call(b"%b%d\r\n\r\n%b" % (head, len(content), content), largest, whole)
        return found

    async def tunnel(self, place: str, headers: Mapping[str, str], context: ssl.SSLContext, host: str) -> None:
        """Have a proxy connect this to a server, and speak TLS with that from here on. Raises OSError."""
        said = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._tunnels = True
        try:
            found = await self._call(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{said}\r\n".encode("latin-1"), 1 << 16)
        except (Broken, Overlong) as error:
            raise ConnectionError(f"the proxy: {error}") from error
        if not 200 <= found.status < 300:
            raise ConnectionError(f"the proxy answers {found.status}")
        self._tunnels = False
        self._transport = await asyncio.get_running_loop().start_tls(self._transport, self, context, server_hostname=host)
        self.usable = True

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    async def _call(self, request: bytes, largest: int, whole: Callable[[Response], Any] = _itself) -> Any:
        if not self.usable:
            raise Broken("the connection is closed")
        self.usable, self._headed, self._room = False, False, largest
        self._parser, self._fields, self._body = httptools.HttpResponseParser(self), [], bytearray()
        self._read = whole
        waiting = self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await waiting
        except BaseException:                      # also where nobody waits any longer: what comes now would be the next call's
            if self._waiting is waiting:
                self.usable = False
                self._transport.abort()
            raise

    # --- asyncio's side
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.usable = transport, True

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._waiting.done():     # nobody asked for this
            self.usable = False
            return
        self._room -= len(data)
        if self._room < 0:
            self._waiting.set_exception(Overlong())
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._break(f"no HTTP: {error}")

    def eof_received(self) -> bool:
        self.usable = False
        framed = {b"content-length", b"transfer-encoding"} & {name.lower() for name, _ in self._fields}
        if self._headed and not framed:                       # a body that ends with the connection
            self._answer()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._break(str(exc) if exc else "the server closed the connection before the end of its answer")

    def _break(self, why: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(Broken(why))

    # --- the parser's side
    def on_message_begin(self) -> None:
        if self._waiting is None:                             # behind the answer, in its packet
            self.usable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        self._headed = self._parser.get_status_code() >= 200
        if self._tunnels and self._headed:                    # what follows is the server's
            self._answer()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if not self._headed:                                  # 100 Continue and its like come before the answer
            self._fields = []
        elif self._waiting is not None:
            self.usable = self._parser.should_keep_alive() and not self._transport.is_closing()
            self._answer()

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._fields}
            settle: Callable[[Any], None] = waiting.set_result
            try:
                found = self._read(Response(self._parser.get_status_code(), headers, bytes(self._body)))
            except Exception as error:
                found, settle = error, waiting.set_exception
            waiting.get_loop().call_soon(_settle, waiting, settle, found)      # in the loop's next turn: who was let through goes first


def _settle(waiting: asyncio.Future[Any], settle: Callable[[Any], None], found: Any) -> None:
    if not waiting.done():
        settle(found)
