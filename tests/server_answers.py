"""What the scripted server says, where a rule of what was asked decides it; `function: server_answers:NAME`."""

import json
import re


def seeded(body):
    """Too short at a first try, good at a second one (which jobs/infer_distil.py tells by the seed)."""
    return "短" if body["seed"] < 60000 else "这一次的回答够长了"


def settings_of(body):
    """What was sent, so that a test can read it."""
    return json.dumps({key: value for key, value in body.items() if key != "messages"}, sort_keys=True)


def heard(body):
    return json.dumps(body["messages"], ensure_ascii=False)


def long(body):
    """An answer of as many tokens as the prompt says."""
    return "字" * int(re.search(r"\d+", body["messages"][-1]["content"])[0])


def calls(body):
    return {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": body["tools"][0]["function"]["name"], "arguments": '{"city": "北京"}'}}]}
