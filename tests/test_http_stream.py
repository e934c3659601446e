"""The connection under a teacher's calls: over TCP and TLS, whatever sizes, whatever the server does."""

import asyncio
import contextlib
import datetime
import socket
import ssl

import httpcore
import pytest

from gristmill.jobs import http_stream


@contextlib.asynccontextmanager
async def serving(answer, context=None):
    """A server whose connections `answer(reader, writer)` handles; yields its port."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context, limit=1 << 16)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def connected(port):
    return await http_stream.Backend().connect_tcp("127.0.0.1", port)


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


async def posted(url, body, context=None, times=1):
    """(status, body) of each of so many requests over one connection."""
    where = httpcore.URL(url)
    found = []
    async with httpcore.AsyncHTTPConnection(where.origin, ssl_context=context, network_backend=http_stream.Backend()) as connection:
        for _ in range(times):
            head = [(b"Host", b"teacher"), (b"Content-Length", str(len(body)).encode())]
            response = await connection.handle_async_request(httpcore.Request("POST", where, headers=head, content=body))
            found.append((response.status, b"".join([chunk async for chunk in response.aiter_stream()])))
            await response.aclose()
    return found


@pytest.mark.parametrize("size", [0, 10, 70_000, 6_000_000])
@pytest.mark.parametrize("tls", [False, True])
def test_what_is_sent_arrives_and_what_comes_back_is_read(tmp_path, size, tls):
    server, client = certificates(tmp_path) if tls else (None, None)
    body = bytes(range(256)) * (size // 256 + 1)

    async def answer(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                _, found = await headed(reader)
                writer.write(said(found[::-1]))
                await writer.drain()

    async def run():
        async with serving(answer, server) as port:
            return await posted(f"http{'s' if tls else ''}://localhost:{port}/v1", body[:size], client, times=3)

    assert asyncio.run(run()) == [(200, body[:size][::-1])] * 3


def test_a_head_and_a_small_body_are_one_packet():
    packets = []

    class Server(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            packets.append(data)
            self.transport.write(said(b"yes"))

    async def run():
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
        found = await posted(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", b"{}" * 400, times=2)
        server.close()
        return found

    assert asyncio.run(run()) == [(200, b"yes")] * 2
    assert len(packets) == 2
    assert all(one.endswith(b"{}{}") and one.startswith(b"POST") for one in packets)


def test_a_server_that_sends_faster_than_is_read_has_to_wait():
    sent = 40 * http_stream.AHEAD

    async def answer(reader, writer):
        writer.write(b"x" * sent)
        await writer.drain()
        writer.close()

    async def run():
        async with serving(answer) as port:
            stream = await connected(port)
            most = got = 0
            while chunk := await stream.read(65536):
                await asyncio.sleep(0)
                most, got = max(most, len(stream._data)), got + len(chunk)
            await stream.aclose()
            return most, got

    most, got = asyncio.run(run())
    assert got == sent
    assert most <= 2 * http_stream.AHEAD


def test_a_server_that_reads_slowly_makes_us_wait():
    async def answer(reader, writer):
        await asyncio.sleep(0.3)
        while await reader.read(1 << 16):
            pass
        writer.close()

    async def run():
        async with serving(answer) as port:
            stream = await connected(port)
            most = 0
            for _ in range(300):
                await stream.write(b"x" * 65536)
                most = max(most, stream._transport.get_write_buffer_size())
            stream._transport.write_eof()
            assert await stream.read(1) == b""
            await stream.aclose()
            return most

    assert asyncio.run(run()) < 4 << 20


def test_times_out_where_it_is_told_to():
    async def answer(reader, writer):
        await asyncio.sleep(5)

    async def run():
        async with serving(answer) as port:
            stream = await connected(port)
            with pytest.raises(httpcore.ReadTimeout):
                await stream.read(1, timeout=0.05)
            with pytest.raises(httpcore.WriteTimeout):
                for _ in range(1000):
                    await stream.write(b"x" * 65536, timeout=0.05)
            await stream.aclose()

    asyncio.run(run())


def test_what_breaks_is_an_error_of_httpcore():
    async def reset(reader, writer):
        await headed(reader)
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async def half(reader, writer):
        await headed(reader)
        writer.write(said(b"x" * 100)[:-50])
        writer.close()

    async def refused():
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        with pytest.raises(httpcore.ConnectError):
            await posted(f"http://127.0.0.1:{port}/", b"x")

    async def run():
        for answer, error in ((reset, httpcore.ReadError), (half, httpcore.RemoteProtocolError)):
            async with serving(answer) as port:
                with pytest.raises(error):
                    await posted(f"http://127.0.0.1:{port}/", b"x")
        await refused()

    asyncio.run(run())


def test_a_certificate_that_is_not_trusted_is_refused(tmp_path):
    server, _ = certificates(tmp_path)

    async def run():
        async with serving(lambda *_: None, server) as port:
            with pytest.raises(httpcore.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await posted(f"https://localhost:{port}/", b"x", ssl.create_default_context())

    asyncio.run(run())


def test_an_idle_connection_that_the_server_has_closed_is_known_to_be():
    async def answer(reader, writer):
        await headed(reader)
        writer.write(said(b"yes"))
        writer.close()

    async def run():
        async with serving(answer) as port:
            where = httpcore.URL(f"http://127.0.0.1:{port}/")
            connection = httpcore.AsyncHTTPConnection(where.origin, network_backend=http_stream.Backend())
            request = httpcore.Request("POST", where, headers=[(b"Host", b"t"), (b"Content-Length", b"1")], content=b"x")
            response = await connection.handle_async_request(request)
            assert [chunk async for chunk in response.aiter_stream()] == [b"yes"]
            await response.aclose()
            await asyncio.sleep(0.1)
            assert connection.has_expired()
            await connection.aclose()

    asyncio.run(run())
