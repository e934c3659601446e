"""A scripted server with OpenAI's API for tests, in a process of its own: how slow it is, what it refuses, breaks off or garbles.

    with Server(latency=0.2, faults={"429": 0.1, "reset": 0.05}, retry_after="0.1") as server:
        ... server.url ...            # http://127.0.0.1:PORT/v1
        server.stats()                # what it saw, see State.stats
        server.change(latency=0)      # any of SCRIPT, while it runs

Which fault a request meets depends on the seed, its last user message (the "prompt") and how often that was asked, so runs can be repeated.
An answer says `答：<prompt>` unless `answers` ([[regular expression, text or message], …], the first that matches) or `function`
("module:function", body -> text or message, with tests/ on the path) says another.
"""

import asyncio
import hashlib
import importlib
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

SCRIPT = {
    "latency": 0.0,          # seconds
    "faults": {},            # {kind: share of requests}: 429 500 503 400 reset truncate slow nonsense stream html overlong
    "retry_after": None,     # the header of a 429
    "slow": 1.0,             # seconds that a slow answer takes more
    "key": None,             # what Authorization must have, else 401
    "models": None,          # those that there are, else 404
    "context": None,         # characters of messages, over which it is 400
    "answers": [], "function": None, "vary": False, "usage": True, "seed": 0, "down": False,
}
KINDS = ("400", "429", "500", "503", "reset", "truncate", "slow", "nonsense", "stream", "html", "overlong")


class State:
    def __init__(self, script):
        self.script = {**SCRIPT, **script}
        self.asked, self.answered, self.met = Counter(), Counter(), Counter()
        self.flying = self.most = 0
        self.timeline, self.starts, self.bodies, self.keys = [], [], [], set()

    def enter(self, step):
        self.flying += step
        self.most = max(self.most, self.flying)
        self.timeline.append((time.monotonic(), self.flying))

    def stats(self):
        return {"requests": sum(self.asked.values()), "asked": self.asked, "answered": self.answered, "faults": self.met, "most": self.most,
                "timeline": self.timeline, "starts": self.starts, "last": self.bodies[-1:], "authorizations": sorted(self.keys)}

    def fault(self, prompt, turn):
        digest = hashlib.blake2b(f"{self.script['seed']}|{prompt}|{turn}".encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "big") / 2**64
        for kind, share in self.script["faults"].items():
            if place < share:
                return kind
            place -= share
        return None

    def answer(self, body, prompt):
        if self.script["function"]:
            module, _, name = self.script["function"].partition(":")
            said = getattr(importlib.import_module(module), name)(body)
        else:
            said = next((said for pattern, said in self.script["answers"] if re.search(pattern, prompt, re.S)), f"答：{prompt}")
        if isinstance(said, str) and self.script["vary"]:
            said += f" {self.answered[prompt]}"
        return {"role": "assistant", "content": said} if isinstance(said, str) else dict(said)


def prompt_of(body):
    if "prompt" in body:
        return body["prompt"]
    said = next((m["content"] for m in reversed(body["messages"]) if m["role"] == "user"), "")
    return said if isinstance(said, str) else "".join(part.get("text", "") for part in said)


def tokens(text):
    return max(1, len(text.encode()) // 4)


def completion(state, body, prompt):
    message = state.answer(body, prompt)
    reason = message.pop("finish_reason", "tool_calls" if message.get("tool_calls") else "stop")
    most = body.get("max_tokens")
    said = message.get("content") or ""
    if most and tokens(said) > most and reason == "stop":
        message["content"], reason = said.encode()[: 4 * most].decode(errors="ignore"), "length"
    choice = {"index": 0, "finish_reason": reason, **({"text": message["content"]} if "prompt" in body else {"message": message})}
    made = {"id": "x", "object": "chat.completion", "model": body["model"], "choices": [choice]}
    if state.script["usage"]:
        made["usage"] = {"prompt_tokens": tokens(json.dumps(body.get("messages") or body["prompt"], ensure_ascii=False)),
                         "completion_tokens": tokens(message.get("content") or "")}
    return made


def response(status, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    head = {"Content-Type": "application/json", "Content-Length": len(content)} | {k.replace("_", "-"): v for k, v in headers.items()}
    return f"HTTP/1.1 {status} X\r\n{''.join(f'{k}: {v}' + chr(13) + chr(10) for k, v in head.items())}\r\n".encode() + content


def refused(status, message, code=None, **headers):
    return response(status, {"error": {"message": message, "type": "error", "code": code}}, **headers)


async def answered(state, head, body):
    """(bytes to send, whether the connection is broken off after them) for a request."""
    script, prompt = state.script, prompt_of(body)
    state.bodies.append(body)
    state.keys.add(head.get("authorization"))
    if script["key"] and head.get("authorization") != f"Bearer {script['key']}":
        return refused(401, f"Incorrect API key provided: {head.get('authorization', '').removeprefix('Bearer ')}", "invalid_api_key"), False
    if script["models"] and body["model"] not in script["models"]:
        return refused(404, f"The model `{body['model']}` does not exist.", "model_not_found"), False
    if script["context"] and sum(len(str(m["content"])) for m in body.get("messages", ())) > script["context"]:
        return refused(400, f"This model's maximum context length is {script['context']} tokens.", "context_length_exceeded"), False
    turn = state.asked[prompt]
    state.asked[prompt] += 1
    fault = "503" if script["down"] else state.fault(prompt, turn)
    if fault:
        state.met[fault] += 1
    await asyncio.sleep(script["latency"] + (script["slow"] if fault == "slow" else 0))
    if fault in ("400", "429", "500", "503"):
        asks = {"Retry_After": script["retry_after"]} if fault == "429" and script["retry_after"] else {}
        return refused(int(fault), f"scripted {fault}", **asks), False
    if fault == "reset":
        return b"", True
    if fault in ("nonsense", "html", "stream"):
        said = {"nonsense": b"\x00\xff{{{ nothing of this is an answer", "html": b"<html><body>504 Gateway</body></html>",
                "stream": b"data: {\"choices\":[{\"delta\":{\"content\":\"\xe4\"}}]}\n\n" * 50}[fault]
        return response(200, said, Content_Type="text/event-stream" if fault == "stream" else "text/html"), False
    made = response(200, completion(state, body, prompt))
    if fault == "truncate":
        return made[: len(made) - 20], True
    if fault == "overlong":
        return response(200, b"x" * (33 << 20)), False
    state.answered[prompt] += 1
    return made, False


async def connected(state, reader, writer):
    try:
        while True:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = lines[0].split(" ")
            head = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
            content = await reader.readexactly(int(head.get("content-length", 0)))
            if path == "/stats":
                writer.write(response(200, state.stats()))
            elif path == "/count":
                writer.write(response(200, {"answered": sum(state.answered.values()), "flying": state.flying}))
            elif path == "/change":
                state.script.update(json.loads(content))
                writer.write(response(200, {}))
            elif method != "POST" or path not in ("/v1/chat/completions", "/v1/completions"):
                writer.write(refused(404, f"no such path {path}"))
            else:
                state.starts.append(time.monotonic())
                state.enter(1)
                try:
                    made, broken = await answered(state, head, json.loads(content))
                finally:
                    state.enter(-1)
                writer.write(made)
                if broken:
                    await writer.drain()
                    writer.transport.abort()
                    return
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def serve(script):
    state = State(script)
    server = await asyncio.start_server(lambda r, w: connected(state, r, w), "127.0.0.1", script.pop("port", 0), backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Server:
    """The server in its own process, which ends with the block."""

    def __init__(self, **script):
        unknown = set(script) - set(SCRIPT) - {"port"} | set(script.get("faults", {})) - set(KINDS)
        assert not unknown, unknown
        self.script = script

    def __enter__(self):
        self.process = subprocess.Popen([sys.executable, __file__, json.dumps(self.script)], stdout=subprocess.PIPE)
        self.root = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        self.url = f"{self.root}/v1"
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stats(self):
        with urllib.request.urlopen(f"{self.root}/stats") as answer:
            return json.load(answer)

    def count(self):
        with urllib.request.urlopen(f"{self.root}/count") as answer:
            return json.load(answer)

    def change(self, **script):
        asked = urllib.request.Request(f"{self.root}/change", json.dumps(script).encode(), method="POST")
        urllib.request.urlopen(asked).close()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    asyncio.run(serve(json.loads(sys.argv[1])))
