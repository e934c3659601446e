"""The connection under a teacher's calls: over TCP, TLS and proxies, whatever sizes, whatever the server does."""

import asyncio
import base64
import contextlib
import datetime
import socket
import ssl

import pytest

from gristmill.jobs.http_connection import Broken, Connection, Overlong, Response, Server
from gristmill.udfs.errors import RecipeError


@contextlib.asynccontextmanager
async def serving(answer, context=None):
    """A server whose connections `answer(reader, writer)` handles; yields its port."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context, limit=1 << 16)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def headed(reader):
    """(head, body) of a request."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    return head, await reader.readexactly(size)


def said(body, status=b"200 OK"):
    return b"HTTP/1.1 " + status + b"\r\ncontent-length: " + str(len(body)).encode() + b"\r\n\r\n" + body


def certificates(folder):
    """(the server's context, the client's): a certificate for 127.0.0.1 that the client trusts."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "teacher")])
    now = datetime.datetime.now(datetime.UTC)
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
            .add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256()))
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(folder / "cert.pem"))
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return server, client


MOST = 1 << 26


def itself(response):
    return response


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def posted(url, body, context=None, times=1, most=MOST):
    """(status, body) of each of so many requests over one connection."""
    server = Server(url, context)
    connection, found = await server.connect(), []
    try:
        for _ in range(times):
            response = await connection.post(server.head({"X-Said": "once"}), body, most, itself)
            found.append((response.status, response.body))
    finally:
        connection.close()
    return found


def answering(*pieces, then="wait"):
    """A server that reads a request and writes these pieces, each by itself, and then waits, closes or resets the connection."""
    async def answer(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await headed(reader)
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if then == "reset":
                    writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    writer.transport.abort()
                if then != "wait":
                    break
        writer.close()

    return answer


def asked(answer, times=1, most=MOST):
    """[Response, …] of so many calls over one connection, or what they raise, and whether it can be used again after a moment."""
    async def run():
        async with serving(answer) as port:
            server = Server(f"http://127.0.0.1:{port}/v1/x?y=1")
            connection = await server.connect()
            try:
                found = [await asyncio.wait_for(connection.post(server.head({}), b"{}", most, itself), 10) for _ in range(times)]
            except (Broken, Overlong) as error:
                found = error
            await asyncio.sleep(0.02)
            usable = connection.usable
            connection.close()
            return found, usable

    return asyncio.run(run())


@pytest.mark.parametrize("size", [0, 10, 70_000, 6_000_000])
@pytest.mark.parametrize("tls", [False, True])
def test_what_is_sent_arrives_and_what_comes_back_is_read(tmp_path, size, tls):
    server, client = certificates(tmp_path) if tls else (None, None)
    body = bytes(range(256)) * (size // 256 + 1)

    async def answer(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head, found = await headed(reader)
                assert head.startswith(b"POST /v1 HTTP/1.1\r\nHost: localhost:")
                assert b"X-Said: once\r\n" in head
                writer.write(said(found[::-1]))
                await writer.drain()

    async def run():
        async with serving(answer, server) as port:
            return await posted(f"http{'s' if tls else ''}://localhost:{port}/v1", body[:size], client, times=3)

    assert asyncio.run(run()) == [(200, body[:size][::-1])] * 3


def test_runs_on_the_loop_that_rays_actors_take_where_it_is_installed(tmp_path):
    server, client = certificates(tmp_path)

    async def run():
        async with serving(answering(said(b"yes"))) as port, serving(answering(said(b"yes")), server) as secure:
            return (await posted(f"http://localhost:{port}/v1", b"x", times=2)
                    + await posted(f"https://localhost:{secure}/v1", b"x", client, times=2))

    with asyncio.Runner(loop_factory=pytest.importorskip("uvloop").new_event_loop) as runner:
        assert runner.run(run()) == [(200, b"yes")] * 4


def test_a_head_and_its_body_are_one_packet():
    packets = []

    class One(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            packets.append(data)
            self.transport.write(said(b"yes"))

    async def run():
        server = await asyncio.get_running_loop().create_server(One, "127.0.0.1", 0)
        found = await posted(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", b"{}" * 400, times=2)
        server.close()
        return found

    assert asyncio.run(run()) == [(200, b"yes")] * 2
    assert len(packets) == 2
    assert all(one.endswith(b"{}{}") and one.startswith(b"POST") for one in packets)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: t\r\n\r\n"
FRAMES = {
    "length": (said(b"hello world"), True),
    "chunked": (CHUNKED, True),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + said(b"hello world"), True),
    "hints": (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + CHUNKED, True),
    "says that it closes": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 11\r\n\r\nhello world", False),
    "1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 11\r\n\r\nhello world", False),
}


@pytest.mark.parametrize("name", FRAMES)
def test_an_answer_is_the_same_however_it_is_framed_and_cut(name):
    whole, stays = FRAMES[name]
    for step in (1, 2, 7, len(whole)):
        found, usable = asked(answering(*(whole[at: at + step] for at in range(0, len(whole), step))), times=2 if stays else 1)
        assert [(one.status, one.body) for one in found] == [(200, b"hello world")] * len(found)
        assert usable is stays


def test_a_body_without_a_length_ends_with_the_connection():
    found, usable = asked(answering(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello", b" world", then="close"))
    assert found == [Response(200, {"x": "y"}, b"hello world")]
    assert not usable


def test_names_of_headers_are_small_and_statuses_are_kept():
    found, usable = asked(answering(b"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nX-Y: \xe9\r\nContent-Length: 0\r\n\r\n"))
    assert found[0].status == 429
    assert found[0].headers["retry-after"] == "7"
    assert usable


@pytest.mark.parametrize(("pieces", "then"), [
    ((), "close"), ((), "reset"), ((b"HTTP/1.1 200",), "close"), ((said(b"x" * 100)[:-50],), "close"), ((said(b"x" * 100)[:-50],), "reset"),
    ((CHUNKED[:-30],), "close"), ((b"\x00\xff nothing of this is HTTP\r\n\r\n",), "wait"), ((b"HTTP/1.1 2x0 OK\r\n\r\n",), "wait"),
    ((b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",), "wait"), ((b"HTTP/1.1 200 OK\r\nContent-Length: 9" + b"9" * 40 + b"\r\n\r\n",), "wait"),
    ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",), "wait"),
    ((b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",), "wait"),
])
def test_what_is_no_whole_answer_is_broken(pieces, then):
    found, usable = asked(answering(*pieces, then=then))
    assert isinstance(found, Broken)
    assert str(found)
    assert not usable


@pytest.mark.parametrize("sent", [said(b"x" * 5000), b"HTTP/1.1 200 OK\r\n" + b"X: yyyyyyyy\r\n" * 1000])
def test_an_answer_that_is_too_long_is_not_held(sent):
    found, usable = asked(answering(sent), most=4000)
    assert isinstance(found, Overlong)
    assert not usable


def test_what_comes_unasked_makes_a_connection_useless():
    found, usable = asked(answering(said(b"yes"), said(b"and more that nobody asked for")))
    assert found[0].body == b"yes"
    assert not usable


def test_an_idle_connection_that_the_server_has_closed_is_known_to_be():
    found, usable = asked(answering(said(b"yes"), then="close"))
    assert found[0].body == b"yes"
    assert not usable


def test_a_call_that_nobody_waits_for_any_longer_takes_its_connection_with_it():
    closed = asyncio.Event()

    async def answer(reader, writer):
        await headed(reader)
        await reader.read()
        closed.set()

    async def run():
        async with serving(answer) as port:
            server = Server(f"http://127.0.0.1:{port}/")
            connection = await server.connect()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connection.post(server.head({}), b"", MOST, itself), 0.05)
            assert not connection.usable
            await asyncio.wait_for(closed.wait(), 5)
            with pytest.raises(Broken):
                await connection.post(server.head({}), b"", MOST, itself)

    asyncio.run(run())


def test_the_next_call_goes_out_before_the_answer_is_handed_on():
    """And a call that is cancelled between the two leaves the connection to the next."""
    async def run(cancels):
        order = []
        async with serving(answering(said(b"yes"))) as port:
            server = Server(f"http://127.0.0.1:{port}/")
            connection, following = await server.connect(), []

            async def next_one():
                order.append("sent")
                return await connection.post(server.head({}), b"2", MOST, itself)

            def whole(response):
                order.append("landed")
                following.append(asyncio.ensure_future(next_one()))
                if cancels:
                    first.cancel()
                return response.body.decode()

            async def first_one():
                order.append(await connection.post(server.head({}), b"1", MOST, whole))

            first = asyncio.ensure_future(first_one())
            await asyncio.wait([first])
            assert (await following[0]).body == b"yes"
            assert connection.usable
            connection.close()
        return order, first.cancelled()

    assert asyncio.run(run(False)) == (["landed", "sent", "yes"], False)
    assert asyncio.run(run(True)) == (["landed", "sent"], True)


def test_what_goes_wrong_with_an_answer_is_its_callers():
    def whole(response):
        raise KeyError(response.status)

    async def run():
        async with serving(answering(said(b"no", b"429 Slow"))) as port:
            server = Server(f"http://127.0.0.1:{port}/")
            connection = await server.connect()
            for _ in range(2):
                with pytest.raises(KeyError, match="429"):
                    await connection.post(server.head({}), b"", MOST, whole)
            assert connection.usable
            connection.close()

    asyncio.run(run())


def test_where_nobody_listens_is_an_error_of_the_system():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(posted(f"http://127.0.0.1:{port}/", b"x"))


def test_a_certificate_that_is_not_trusted_is_refused(tmp_path):
    server, _ = certificates(tmp_path)

    async def run():
        async with serving(lambda *_: None, server) as port:
            with pytest.raises(ssl.SSLCertVerificationError):
                await posted(f"https://localhost:{port}/", b"x")

    asyncio.run(run())


# --- proxies
def proxy(seen, refuses=False):
    """A proxy that notes the first line and the authorization of what it hears, and relays CONNECT to any port of this machine."""
    async def relayed(reader, writer):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def answer(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        seen.append((head[0], next((line.split(": ")[1] for line in head if line.startswith("Proxy-Authorization")), None)))
        if refuses:
            writer.write(said(b"who are you?", b"407 Proxy Authentication Required"))
        elif head[0].startswith("CONNECT"):
            port = int(head[0].split(" ")[1].split(":")[1])
            there, back = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                await asyncio.gather(relayed(reader, back), relayed(there, writer))
        else:
            writer.write(said(b"by the proxy"))
        await writer.drain()

    return answer


BASIC = f"Basic {base64.b64encode(b'me:p@ss').decode()}"


def test_a_proxy_is_told_the_whole_address(monkeypatch):
    seen = []

    async def run():
        async with serving(proxy(seen)) as port:
            monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{port}")
            found = await posted("http://teacher.example:81/v1?x=y", b"x")
            monkeypatch.setenv("no_proxy", "teacher.example")
            with pytest.raises(socket.gaierror):                  # straight there, where no such host is
                await posted("http://teacher.example:81/v1", b"x")
        return found

    assert asyncio.run(run()) == [(200, b"by the proxy")]
    assert seen == [("POST http://teacher.example:81/v1?x=y HTTP/1.1", BASIC)]


@pytest.mark.parametrize("name", ["https_proxy", "ALL_PROXY"])
def test_tls_goes_through_a_proxy_by_connect(tmp_path, monkeypatch, name):
    server, client = certificates(tmp_path)
    seen, heads = [], []

    async def answer(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head, found = await headed(reader)
                heads.append(head)
                writer.write(said(found))
                await writer.drain()

    async def run():
        async with serving(answer, server) as port, serving(proxy(seen)) as between:
            monkeypatch.setenv(name, f"me:p%40ss@127.0.0.1:{between}")
            found = await posted(f"https://localhost:{port}/v1", b"x" * 100_000, client, times=2)
            return found, port

    found, port = asyncio.run(run())
    assert found == [(200, b"x" * 100_000)] * 2
    assert seen == [(f"CONNECT localhost:{port} HTTP/1.1", BASIC)]
    assert all(head.startswith(b"POST /v1 HTTP/1.1") and b"Proxy-Auth" not in head for head in heads)


def test_a_proxy_that_refuses_is_named(monkeypatch):
    async def run():
        async with serving(proxy([], refuses=True)) as port:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
            with pytest.raises(ConnectionError, match="the proxy answers 407"):
                await posted("https://teacher.example/v1", b"x")

    asyncio.run(run())


def test_only_http_and_https_are_spoken(monkeypatch):
    for url in ("ftp://teacher.example/v1", "teacher.example/v1", "http:///v1", "http://teacher.example:x/v1", "http://teacher.example:99999",
                "http://" + "a" * 64 + ".example"):
        with pytest.raises(RecipeError, match="over http or https"):
            Server(url)
    monkeypatch.setenv("all_proxy", "socks5://me:secret@127.0.0.1:1080")
    with pytest.raises(RecipeError, match="socks5://127.0.0.1") as error:
        Server("http://teacher.example/v1")
    assert "secret" not in str(error.value)


def test_the_head_names_the_host_as_the_url_does():
    assert Server("http://[::1]:8000/v1").head({}) == b"POST /v1 HTTP/1.1\r\nHost: [::1]:8000\r\nContent-Length: "
    assert Server("https://me:key@teacher.example").head({"A": "b"}) == b"POST / HTTP/1.1\r\nHost: teacher.example\r\nA: b\r\nContent-Length: "
    assert Server("http://教师.example/文?问=1&x=%20").head({}).startswith(
        b"POST /%E6%96%87?%E9%97%AE=1&x=%20 HTTP/1.1\r\nHost: xn--0kqs6e.example\r\n".replace(b"xn--0kqs6e", "教师".encode("idna")))
    assert not Connection().usable
