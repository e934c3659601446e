"""The flow of calls: never more at once or a minute than allowed, what waiting mends is tried again, and what concerns all is one error."""

import asyncio
import itertools
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.jobs import coordinator, flow, teachers_openai
from gristmill.jobs.calls import Answer, Failed, Request, asked, message, thought
from gristmill.jobs.flow import SLACK, Flow, Limits, Pace
from gristmill.jobs.parts import Part
from gristmill.jobs.sections_teacher import Teacher
from gristmill.udfs.errors import EngineError

ASK = Request(({"role": "user", "content": "?"},))


def requests(count):
    return [Request(({"role": "user", "content": str(n)},)) for n in range(count)]


def number(request):
    return int(request.messages[0]["content"])


class Teacher_:
    """A teacher that does what `plan(number of the request, its attempt)` says: an exception, seconds, or None for an answer."""

    def __init__(self, plan=lambda n, attempt: None):
        self.plan, self.sent, self.flying, self.most = plan, [], 0, 0

    async def __call__(self, request, landed):
        n = number(request)
        said = self.plan(n, sum(one == n for one, _ in self.sent))
        self.sent.append((n, asyncio.get_running_loop().time()))
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await asyncio.sleep(said if isinstance(said, float) else 0)
        finally:
            self.flying -= 1
        if isinstance(said, Exception):
            raise said
        return Answer(str(n), completion_tokens=10)


def run(send, count, **limits):
    """(answers, flow) of so many calls at once."""
    async def main():
        made = Flow(send, Limits(**{"backoff": 0.001, **limits}))
        return await asyncio.gather(*(made(request, 1, 1) for request in requests(count)), return_exceptions=True), made

    return asyncio.run(main())


@given(st.lists(st.tuples(st.floats(0, 20), st.lists(st.integers(1, 400), min_size=1, max_size=8)), max_size=40),
       st.sampled_from([None, 30, 600]), st.sampled_from([None, 2000]))
def test_a_pace_is_never_exceeded_and_nobody_waits_for_nothing(leases, rpm, tpm):
    pace, places = Pace(rpm, tpm), []
    now = 0.0
    for gap, tokens in leases:
        now += gap
        places += [(now + delay, size, delay) for delay, size in zip(pace.lease(now, tokens), tokens, strict=True)]
    for start, (begin, _, _) in enumerate(places):
        inside = [(at, size) for at, size, _ in places[start:] if at <= begin + 60]
        assert not rpm or len(inside) <= rpm * (60 + SLACK) / 60 + 1 + 1e-6
        assert not tpm or sum(size for _, size in inside[:-1]) <= tpm * (60 + SLACK) / 60 + inside[0][1] + 1e-6
    for (before, size, _), (at, _, delay) in itertools.pairwise(places):
        longest = max(60 / rpm if rpm else 0, 60 * size / tpm if tpm else 0)
        assert delay == 0 or at <= before + longest + 1e-6
    assert rpm or tpm or all(delay == 0 for _, _, delay in places)


def test_two_that_take_turns_have_one_pace():
    one, two = Pace(600, None), Pace(600, None)
    alone = [delay for _ in range(10) for delay in one.lease(0.0, [1] * 6)]
    shared = [delay for _ in range(20) for delay in two.lease(0.0, [1] * 3)]
    assert alone == shared
    assert shared == sorted(shared)


def test_tokens_are_corrected_after():
    pace = Pace(None, 600)
    assert pace.lease(0, [100, 100])[1] == pytest.approx(10 - SLACK)
    assert pace.lease(0, [100])[0] == pytest.approx(20 - SLACK)
    assert pace.lease(0, [100], correction=-250)[0] == pytest.approx(30 - 25 - SLACK)


@given(st.integers(0, 100), st.dictionaries(st.text(max_size=3), st.integers(0, 40), min_size=1, max_size=5))
def test_shares_are_fair_and_nothing_lies_idle(most, wants):
    given_ = coordinator.shares(most, wants)
    assert sum(given_.values()) == min(most, sum(wants.values()))
    assert all(given_[name] <= want for name, want in wants.items())
    short = [given_[name] for name, want in wants.items() if given_[name] < want]
    assert not short or max(short) - min(short) <= 1
    assert not short or all(given_[name] <= max(short) for name in wants)


def desk(parts=(), rows=10, rate=0.5, workers=("a", "b"), in_flight=8):
    return coordinator.Coordinator(list(parts), {"": (in_flight, None, None)}, workers, rows, 0, rate)


def test_a_call_that_two_would_make_is_made_by_one_of_them():
    async def main():
        made = desk()
        assert await made.claim("a", b"1")
        other, third = (asyncio.create_task(made.claim(name, b"1")) for name in "bc")
        await asyncio.sleep(0)
        assert not other.done()
        await made.lost("a")                               # its call is nobody's
        assert await other
        assert not third.done()
        await made.settle(b"1", True)
        assert not await third
        assert not await made.claim("a", b"1")
        assert await made.claim("a", b"2")
        await made.settle(b"2", False)                     # it failed, so that the next one asks
        assert await made.claim("b", b"2")

    asyncio.run(main())


def test_the_parts_of_a_lost_worker_go_to_another():
    async def main():
        made = desk([Part("x", "x"), Part("y", "y")])
        assert [await made.take("a"), await made.take("b")] == [(Part("x", "x"), False), (Part("y", "y"), False)]
        waits = asyncio.create_task(made.take("b"))
        await made.finish("y", 5, 0, {})
        await asyncio.sleep(0)
        assert not waits.done()                            # a may still be lost
        await made.lost("a")
        assert await waits == (Part("x", "x"), True)
        await made.finish("x", 5, 0, {})
        assert await made.take("b") is None
        assert (await made.stats())["rows"] == 10

    asyncio.run(main())


def test_what_is_in_flight_is_shared_and_never_more():
    async def main():
        made = desk(in_flight=9, workers=("a", "b", "c"))
        wants = {"a": (3, 9), "b": (3, 9), "c": (3, 9)}
        assert [(await made.sync(name, {"": want}, {}))[0][""] for name, want in wants.items()] == [3, 3, 3]
        assert (await made.sync("a", {"": (3, 4)}, {}))[0][""] == 3
        assert (await made.sync("b", {"": (3, 1)}, {}))[0][""] == 1       # it has three still
        assert (await made.sync("c", {"": (3, 9)}, {}))[0][""] == 3
        await made.sync("b", {"": (1, 1)}, {})
        assert (await made.sync("c", {"": (3, 9)}, {}))[0][""] == 4       # 9 less one of b, less four that a may have
        await made.lost("a")
        assert (await made.sync("c", {"": (4, 9)}, {}))[0][""] == 8

    asyncio.run(main())


def test_the_error_rate_stops_everybody():
    async def main():
        made = desk(rows=10, rate=0.2)
        assert (await made.sync("a", {}, {"errors": 2, "reasons": {"error:timeout": 2}}))[1] == ""
        why = (await made.sync("b", {}, {"errors": 1, "reasons": {"error:context": 1}}))[1]
        assert why == "3 of 10 rows failed, over max_error_rate 0.2 (timeout 2, context 1)"
        assert (await made.sync("a", {}, {}))[1] == why

    asyncio.run(main())


def test_the_ceiling_is_reached_and_kept():
    send = Teacher_(lambda n, attempt: 0.02)
    answers, made = run(send, 50, in_flight=7)
    assert [one.text for one in answers] == [str(n) for n in range(50)]
    assert send.most == 7
    assert made.flying == 0


def test_what_waiting_mends_is_tried_again_and_nothing_else():
    errors = {0: Failed("http 429", retry=True), 1: Failed("http 500", retry=True), 2: Failed("http 400", "no"), 3: Failed("context", "long")}
    send = Teacher_(lambda n, attempt: errors[n] if n in errors and attempt < 2 else None)
    answers, made = run(send, 5, retries=3)
    assert [(one.text, one.attempts, one.error) for one in answers] == [
        ("0", 3, None), ("1", 3, None), ("", 1, "http 400: no"), ("", 1, "context: long"), ("4", 1, None)]
    assert made.errors == {"http 429": 2, "http 500": 2, "http 400": 1, "context": 1}


def test_after_so_many_tries_it_is_an_error_of_its_own():
    send = Teacher_(lambda n, attempt: Failed("http 500", "x", retry=True) if n == 3 else None)
    answers, _ = run(send, 30, retries=4, in_flight=2)
    assert [(one.error, one.attempts) for one in answers if one.error] == [("http 500: x", 5)]
    assert not answers[3].final


def test_retry_after_holds_everybody():
    send = Teacher_(lambda n, attempt: Failed("http 429", retry=True, after=0.3) if n == 5 and attempt == 0 else 0.01)
    answers, _ = run(send, 40, in_flight=3)
    assert all(one.error is None for one in answers)
    refused = next(at for n, at in send.sent if n == 5)
    assert not [at for _, at in send.sent if refused + 0.02 < at < refused + 0.3]     # those that were under way began before


def test_a_time_out_is_tried_again():
    answers, made = run(Teacher_(lambda n, attempt: 5.0 if n == 1 and attempt == 0 else None), 3, timeout=0.05)
    assert [(one.error, one.attempts) for one in answers] == [(None, 1), (None, 2), (None, 1)]
    assert made.errors == {"timeout": 1}


def test_an_error_of_all_calls_is_one_error_and_one_request():
    send = Teacher_(lambda n, attempt: Failed("http 401", "no key", fatal=True))
    answers, _ = run(send, 100, in_flight=50)
    assert len(send.sent) == 1
    assert len({str(one) for one in answers}) == 1
    assert all(isinstance(one, EngineError) and "http 401: no key" in str(one) for one in answers)


def test_a_host_that_is_not_there_ends_it_only_before_the_first_answer():
    gone = Failed("connect", "no such host", retry=True, fatal=True)
    answers, _ = run(Teacher_(lambda n, attempt: gone), 5)
    assert all(isinstance(one, EngineError) for one in answers)
    answers, _ = run(Teacher_(lambda n, attempt: gone if n and attempt == 0 else None), 5)
    assert all(one.error is None for one in answers)


def test_a_teacher_that_is_down_burns_no_call(monkeypatch):
    monkeypatch.setattr(flow, "LONGEST", 0.01)
    count = itertools.count()

    def plan(n, attempt):
        return Failed("http 503", retry=True) if 20 <= next(count) < 120 else None

    send = Teacher_(plan)
    answers, made = run(send, 60, in_flight=8, retries=2)
    assert all(one.error is None for one in answers)
    assert made.errors == {"http 503": 100}
    assert max(one.attempts for one in answers) > 3                # forgiven, as it was nobody's fault


def test_patience_ends(monkeypatch):
    monkeypatch.setattr(flow, "LONGEST", 0.01)
    answers, _ = run(Teacher_(lambda n, attempt: Failed("connect", "refused", retry=True)), 20, in_flight=8, retries=1, patience=0.05)
    ended = [one for one in answers if isinstance(one, EngineError)]
    assert ended
    assert all("no answer for" in str(one) and "connect: refused" in str(one) for one in ended)
    answers, _ = run(Teacher_(lambda n, attempt: Failed("http 429", "come tomorrow", retry=True, after=86400.0)), 20)
    assert all("asks to wait for 86400 s" in str(one) for one in answers)


def test_an_answer_that_has_landed_is_kept_and_makes_room_before_its_caller_goes_on():
    """Whether its sender says so or not, whatever comes of it: every answer is kept once, and every place given back once."""
    async def main():
        order, made = [], None

        async def send(request, landed):
            order.append(("sent", number(request), made.flying))
            await asyncio.sleep(0.01)
            answer = Answer(str(number(request)))
            if number(request) == 4:
                raise Failed("http 400", "no")
            if number(request) % 3:
                landed(answer)
                landed(Answer("another"))
                await asyncio.sleep(0.01)
            return answer

        async def one(request):
            answer = await made(request, 1, 1, lambda kept: order.append(("kept", number(request), kept)))
            order.append(("done", number(request), answer))
            return answer

        made = Flow(send, Limits(in_flight=1))
        answers = await asyncio.gather(*(one(request) for request in requests(8)))
        return order, answers, made.flying

    order, answers, flying = asyncio.run(main())
    assert flying == 0
    assert [one.text or one.error for one in answers] == ["0", "1", "2", "3", "http 400: no", "5", "6", "7"]
    assert max(n for what, _, n in order if what == "sent") == 1          # never more than the ceiling are with the teacher
    assert [kept for what, _, kept in order if what == "kept"] == answers
    places = {(what, n): at for at, (what, n, _) in enumerate(order)}
    assert len(places) == len(order) == 24
    for n in range(7):
        assert places["sent", n] < places["kept", n] < places["sent", n + 1]
        assert (places["sent", n + 1] < places["done", n]) == (n % 3 > 0 and n != 4)


def test_what_cannot_be_kept_is_an_error_and_no_call_is_stuck():
    def keep(answer):
        raise EngineError("the disk is full")

    async def main():
        made = Flow(Teacher_(lambda n, attempt: Failed("http 400", "no") if n == 1 else None), Limits(in_flight=1))
        found = await asyncio.gather(*(made(request, 1, 1, keep) for request in requests(3)), return_exceptions=True)
        return [str(one) for one in found], made.flying

    assert asyncio.run(main()) == (["the disk is full"] * 3, 0)


def test_an_answer_that_is_here_is_not_too_late():
    async def send(request, landed):
        landed(Answer("x"))
        await asyncio.sleep(5)

    async def main():
        kept = []
        made = Flow(send, Limits(timeout=0.02))
        return await made(ASK, 1, 1, kept.append), kept, made.flying

    answer, kept, flying = asyncio.run(main())
    assert (answer.text, kept, flying) == ("x", [answer], 0)


def test_a_cancelled_call_gives_its_place_back():
    async def main():
        made = Flow(Teacher_(lambda n, attempt: 0.05), Limits(in_flight=2))
        tasks = [asyncio.create_task(made(request, 1, 1)) for request in requests(6)]
        await asyncio.sleep(0.02)
        for task in tasks[:4]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        return [one.text for one in done[4:]], made.flying

    assert asyncio.run(main()) == (["4", "5"], 0)


SETTINGS = Teacher(base_url="http://127.0.0.1:1/v1", model="m", key_env="KEY")


@pytest.mark.parametrize(("status", "body", "kind", "retry", "fatal"), [
    (429, {"error": {"message": "slow down"}}, "http 429", True, False),
    (429, {"error": {"message": "pay", "code": "insufficient_quota"}}, "http 429", False, True),
    (500, b"<html>", "http 500", True, False), (529, {}, "http 529", True, False), (408, {}, "http 408", True, False),
    (400, {"error": {"message": "maximum context length is 8192 tokens"}}, "context", False, False),
    (413, b"", "context", False, False),
    (400, {"error": {"message": "temperature must be below 2"}}, "http 400", False, False),
    (422, {"detail": "x"}, "http 422", False, False), (403, {}, "http 403", False, False),
    (401, {"error": "no"}, "http 401", False, True), (402, {}, "http 402", False, True), (404, {}, "http 404", False, True),
    (400, {"error": {"message": "x", "type": "invalid_model"}}, "http 400", False, True),
    (301, b"", "malformed", False, True),
    (200, {"error": {"message": "busy", "code": 503}}, "http 503", True, False),
    (200, b"data: {}", "malformed", True, False), (200, {}, "malformed", True, False), (200, {"choices": []}, "malformed", True, False),
    (200, {"choices": [{"message": {"content": 5}}]}, "malformed", True, False), (200, b"[]", "malformed", True, False),
])
def test_what_a_response_means(status, body, kind, retry, fatal):
    import json

    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Failed) as failed:
        teachers_openai.read(status, {}, content, SETTINGS)
    assert (failed.value.kind, failed.value.retry, failed.value.fatal) == (kind, retry, fatal)


def test_answers_as_servers_write_them():
    import json

    def read(message_, reason="stop", **more):
        return teachers_openai.read(200, {}, json.dumps({"choices": [{"message": message_, "finish_reason": reason}], **more}).encode(), SETTINGS)

    assert read({"content": "x"}, usage={"prompt_tokens": 3, "completion_tokens": 4}) == Answer("x", finish_reason="stop", prompt_tokens=3, completion_tokens=4)
    assert read({"content": "x", "reasoning_content": "r"}).reasoning == read({"content": "x", "reasoning": "r"}).reasoning == "r"
    called = read({"content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}, "tool_calls")
    assert (called.text, called.tool_calls, called.error) == ("", ({"id": "1", "name": "f", "arguments": "{}"},), None)
    assert [read({"content": said}).kind for said in ("", " \n", None)] == ["empty"] * 3
    assert read({"content": "half"}, "content_filter").kind == "content_filter"


def test_retry_after_as_seconds_and_as_a_date():
    def after(value, now=None):
        return teachers_openai.retry_after({"retry-after": value}, now)

    assert (after("7"), after("0.5"), after("-3"), after(""), after("soon")) == (7, 0.5, 0, None, None)
    assert after(formatdate(1000 + 30, usegmt=True), 1000.0) == 30
    assert after(formatdate(1000 - 30, usegmt=True), 1000.0) == 0


@pytest.mark.parametrize(("text", "reasoning", "expected"), [
    ("<think>\n想\n</think>\n\n好", None, ("好", "想")), ("想</think>好", None, ("好", "想")), ("<think>没有完", None, ("", "没有完")),
    ("好", None, ("好", None)), ("好", "想", ("好", "想")), ("<think>二</think>好", "一", ("好", "一\n\n二")), ("<think></think>好", None, ("好", "")),
    ("a </think> b", "想", ("a </think> b", "想")),
])
def test_what_it_thought(text, reasoning, expected):
    assert thought(Answer(text, reasoning)) == expected


def test_messages_as_the_chat_api_takes_them():
    call = {"id": None, "name": "f", "arguments": None}
    made = asked([message("user", "看 <image> 这", images=["http://x/y.png"]), message("assistant", None, tool_calls=[call, call], reasoning="想"),
                  message("tool", "1"), message("tool", "2")])
    assert made[0]["content"] == [{"type": "text", "text": "看 "}, {"type": "image_url", "image_url": {"url": "http://x/y.png"}}, {"type": "text", "text": " 这"}]
    assert [one["id"] for one in made[1]["tool_calls"]] == [made[2]["tool_call_id"], made[3]["tool_call_id"]]
    assert made[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert "reasoning" not in made[1]
