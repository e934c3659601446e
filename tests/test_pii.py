"""The fast path finds what Presidio finds with the same recognisers, in any text; spans are of the text as it is."""

import gzip
import json
import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import NoOpNlpEngine

import pii_planted
from gristmill.udfs import fakes, pii, pii_recognisers
from gristmill.udfs.pii_entities import KEYS, NAMES
from gristmill.udfs.pii_view import View
from gristmill.udfs.texts import Texts
from shared import shared

PIECES = [*"0123456789" * 3, *" --..:/()+@\n\t,;abcdefABCDEFxX_=#京沪纬北AK微信出生QQ号年月日：，。１２＠．°", "&#64;", "&#x4", "\u200b", "13812345678", "110101199003077475",
          "4111111111111111", "6222 0210 ", "91310000MA1K35L2", "example.com", "a@b.com", "http://u:p", "微信号", "QQ：", "12.34.56.78", "fe80::1", "00:1b:44:",
          "GB56HXDO88167774656119", "born on ", "1990-01-02", "1990年3月7日", "出生日期", "token=", "sk-", "AKIA", "(at)", "0755-", "+1 ", "+86", "00852",
          "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "39.9042, 116.4074", "0x", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "E12345678", "护照", "卡号",
          "电话", "订单号", "phone", "版本", "x" * 20, "\0", "\ud7ff", "e\u0301", "𝟙𝟚", "😀"]


@pytest.fixture(scope="module")
def engine():
    return AnalyzerEngine(registry=pii_recognisers.registry(), nlp_engine=NoOpNlpEngine(models=[{"lang_code": code, "model_name": "none"} for code in ("en", "zh")]),
                          supported_languages=["en", "zh"])


def whole(engine, text, threshold=pii.THRESHOLD, language="zh"):
    """What Presidio finds in the whole text, without overlaps."""
    found = engine.analyze(text, language, score_threshold=threshold)
    apart = pii.resolved([pii.Span(result.entity_type, result.start, result.end, result.score) for result in found])
    return [span for span in apart if not fakes.is_reserved(span.entity, text[span.start : span.end])]


def windows(texts, threshold=pii.THRESHOLD):
    return pii.spans(Texts(pa.array(texts, pa.large_string())), thresholds=dict.fromkeys(pii.ENTITIES, threshold))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=60).map("".join), min_size=1, max_size=4), st.sampled_from([0.01, 0.5]))
def test_as_presidio_on_random_text(engine, texts, threshold):
    assert windows(texts, threshold) == [whole(engine, text, threshold) for text in texts]


@pytest.mark.parametrize("make", [pii_planted.chinese, pii_planted.english])
def test_as_presidio_on_planted_text(engine, make):
    texts = [text for text, _ in make(seed=8, n=250)]
    assert windows(texts) == [whole(engine, text) for text in texts]
    assert windows(texts, 0.01) == [whole(engine, text, 0.01) for text in texts]


def test_as_presidio_on_labelled_text(engine):
    with gzip.open(shared("pii/presidio_synth_v2_en.jsonl.gz")) as file:
        texts = [json.loads(line)["full_text"] for line in file][:700]
    with gzip.open(shared("raw_en_web/c4_sample.jsonl.gz")) as file:
        texts += [json.loads(line)["text"] for line in file][:60]
    assert windows(texts, 0.01) == [whole(engine, text, 0.01, "en") for text in texts]


def test_neither_batches_nor_neighbours_matter():
    texts = [text for text, _ in pii_planted.chinese(seed=9, n=80)] + ["", "1", "2" * 30]
    rng = random.Random(1)
    alone = [windows([text])[0] for text in texts]
    assert windows(texts) == alone
    order = rng.sample(range(len(texts)), len(texts))
    assert windows([texts[k] for k in order]) == [alone[k] for k in order]
    sliced = Texts(pa.array(["x", *texts], pa.large_string()).slice(1))
    assert pii.spans(sliced) == alone
    assert pii.spans(Texts(pa.array([None, texts[0]], pa.large_string()))) == [[], alone[0]]


@pytest.mark.parametrize(("text", "entity", "value"), [
    ("𠮷𠮷e\u0301邮箱ａｂ\u200bc&#64;ｅxample-mail.com\u200b。", "EMAIL_ADDRESS", "ａｂ\u200bc&#64;ｅxample-mail.com"),
    ("手机１３８\u00ad１２３４&#45;５６７８", "PHONE_CN", "１３８\u00ad１２３４&#45;５６７８"),
    ("身份证：１１０１０１ １９９００３０７\r\n７４７５。", "ID_CARD_CN", "１１０１０１ １９９００３０７\r\n７４７５"),
    ("write to john (at) wikimedia.org now", "EMAIL_ADDRESS", "john (at) wikimedia.org"),
    ("ftp://user:s3cr3t@files.wikimedia.org/a", "URL_CREDENTIALS", "user:s3cr3t"),
])
def test_spans_are_of_the_text_as_it_is(engine, text, entity, value):
    found = [(span.entity, text[span.start : span.end]) for span in windows([text])[0]]
    assert found == [(entity, value)]
    assert windows([text])[0] == whole(engine, text)


def test_every_character_of_a_view_knows_where_it_comes_from():
    text = "a&#64;\u200bＢ&#x30;&commat;&amp;&#9;𝟙\u2060京"
    view = View(Texts(pa.array(["x\u200b", text])), pii.marks())
    start, end = view.offsets[1:3].tolist()
    assert view.slice(start, end) == "a@B0@&amp;&#9;1京"
    pieces = [text[slice(*view.span(1, k, k + 1))] for k in range(start, end)]
    assert pieces == ["a", "&#64;", "Ｂ", "&#x30;", "&commat;", *"&amp;&#9;", "𝟙", "京"]


def test_of_two_overlapping_spans_the_more_certain_stays_then_the_longer():
    one, other, third = pii.Span("PHONE_NUMBER", 0, 12, 0.5), pii.Span("ID_CARD_CN", 5, 20, 1.0), pii.Span("QQ", 20, 30, 0.9)
    assert pii.resolved([one, third, other]) == [other, third]
    assert pii.resolved([pii.Span("QQ", 0, 5, 0.9), pii.Span("WECHAT", 3, 12, 0.9)]) == [pii.Span("WECHAT", 3, 12, 0.9)]


def test_every_entity_has_a_key_and_context_in_both_directions():
    assert set(KEYS.values()) == set(pii.ENTITIES) | {KEYS[key] for key in NAMES}
    card, order = "卡号 5105 1051 0510 5100", "2019年"
    assert windows([card])[0]
    assert not windows([order])[0]
    cased = [windows([text])[0] for text in ("护照号 K12345670", "国药准字 K12345670", "护照；国药准字 K12345670")]
    assert [len(found) for found in cased] == [1, 0, 0]


@pytest.mark.parametrize("text", [
    "1" * 200_000, "1 " * 100_000, "a@" * 50_000, "a." * 60_000 + "@", "微信" * 30_000, "1.1." * 40_000, ":" * 100_000, "ab:" * 40_000, "-----BEGIN " * 10_000,
    "(at)" * 30_000, "京A" * 40_000, "GB12" * 40_000, "39.123 " * 30_000, "&#" * 50_000, "token=" * 20_000 + "x", "138-" * 30_000, "+" * 60_000, "x" * 300_000,
    "eyJ" + "a" * 100_000, "QQ:" * 30_000, "born 1" * 20_000, "http://" * 20_000 + "@", "\u200b" * 200_000 + "1", "0x" + "f" * 100_000], ids=lambda text: text[:12])
def test_hostile_text_ends(text):
    """A pattern that backtracks would take hours: Presidio's clock ends it, and that is an error here (the test below)."""
    assert len(windows([text])) == 1


def test_a_pattern_that_times_out_is_an_error_and_not_silence(monkeypatch):
    import presidio_analyzer.pattern_recognizer as presidio

    class Slow:
        def finditer(self, text, timeout):
            raise TimeoutError

    one = pii_recognisers.Recogniser(pii.ENTITIES["QQ"])
    one.patterns[0].compiled_regex, one.patterns[0].compiled_with_flags = Slow(), one.global_regex_flags
    assert presidio.REGEX_TIMEOUT_SECONDS
    with pytest.raises(TimeoutError):
        one.find("QQ：12345")


def test_nothing_reaches_for_the_network(monkeypatch):
    import socket

    def refuse(*_: object, **__: object):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    from gristmill.udfs import pii_checks

    pii_checks._suffixes.cache_clear()
    pii_checks.domain.cache_clear()
    assert windows(["to a@sub.example-mail.co.uk"])[0][0].score == 1.0


def test_words_of_the_caller_count_as_cues(engine):
    """A column's name, say: AnalyzerEngine.analyze(..., context=["phone"])."""
    without, with_it = (engine.analyze("450 0840", "en", entities=["PHONE_NUMBER"], context=context) for context in (None, ["phone"]))
    assert with_it[0].score > without[0].score
