"""A server that takes its time over every answer and no processor's: what measures `infer` must not be what is measured.

tests/server_openai.py, which reads and scripts every request, takes as long over a call as `infer` does, on the same cores. This one
looks for the end of a request, waits, and says the same answer to all.
"""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request

CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "您好，订单正在配送途中，预计明天送达。"}}
SAID = json.dumps({"id": "x", "object": "chat.completion", "model": "m", "choices": [CHOICE],
    "usage": {"prompt_tokens": 30, "completion_tokens": 20}}, ensure_ascii=False).encode()


def response(body):
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Answers(asyncio.Protocol):
    latency, flying, timeline = 0.2, 0, list[tuple[float, int]]()      # of all connections; (when, calls in flight from then on)
    answer = response(SAID)

    def connection_made(self, transport):
        self.transport, self.data = transport, b""

    @classmethod
    def count(cls, step):
        cls.flying += step
        cls.timeline.append((time.monotonic(), cls.flying))

    def data_received(self, data):
        self.data += data
        head, end, rest = self.data.partition(b"\r\n\r\n")
        _, _, size = head.lower().partition(b"content-length:")
        if not end or len(rest) < int(size.split(b"\r\n")[0] or 0):
            return
        self.data = b""
        if head.startswith(b"GET /stats"):
            self.transport.write(response(json.dumps(self.timeline).encode()))
            return
        self.count(1)
        asyncio.get_running_loop().call_later(self.latency, self.done)

    def done(self):
        self.count(-1)
        self.transport.write(self.answer)


class Server:
    """The server in a process of its own, which ends with the block."""

    def __init__(self, latency):
        self.latency = latency

    def __enter__(self):
        self.process = subprocess.Popen([sys.executable, __file__, str(self.latency)], stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def timeline(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats") as answer:
            return json.load(answer)


class Asks(asyncio.Protocol):
    """Sends the next of some finished requests the moment an answer is whole, and does nothing else."""

    def __init__(self, requests, ended):
        self.requests, self.ended, self.data = requests, ended, b""

    def connection_made(self, transport):
        self.transport = transport
        self.ask()

    def ask(self):
        request = next(self.requests, None)
        if request is None:
            self.ended()
        else:
            self.transport.write(request)

    def data_received(self, data):
        self.data += data
        if len(self.data) >= len(Answers.answer):
            self.data = b""
            self.ask()


async def bare(port, count, in_flight):
    """What a loop of asyncio can do at most: so many calls, with so many in flight."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "请用一句话说明为什么订单还没有到。"}]}).encode()
    requests = iter([b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)] * count)
    loop, left = asyncio.get_running_loop(), asyncio.Semaphore(0)
    for _ in range(in_flight):
        await loop.create_connection(lambda: Asks(requests, left.release), "127.0.0.1", port)
    for _ in range(in_flight):
        await left.acquire()


async def serve(latency):
    Answers.latency = latency
    server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
