"""What `redact` finds and what it takes for personal data: floors on labelled data, beside Presidio's own recognisers.

    pytest tests/test_pii_quality.py -s      prints the tables that stand in the README
"""

import gzip
import ipaddress
import json
import re
import unicodedata
from collections import Counter, defaultdict
from itertools import islice

import phonenumbers
import pyarrow as pa
import pytest
import tldextract
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, predefined_recognizers
from presidio_analyzer.nlp_engine import NoOpNlpEngine
from stdnum import bitcoin, iban, luhn
from stdnum.cn import ric, uscc

import pii_planted
from gristmill.udfs import pii, pii_recognisers
from gristmill.udfs.texts import Texts
from shared import rows, shared

PATTERNS = ["CREDIT_CARD", "PHONE_NUMBER", "EMAIL_ADDRESS", "IBAN_CODE", "US_SSN", "IP_ADDRESS"]
# Presidio tells neither the region of a telephone nor a private address from a public one, and the labels of its own set do not either.
WIDE = {"PHONE_CN": "PHONE_NUMBER", "PHONE_HK": "PHONE_NUMBER", "PHONE_TW": "PHONE_NUMBER", "IP_PRIVATE": "IP_ADDRESS"}
THEIRS = {"CREDIT_CARD": "CreditCard", "PHONE_NUMBER": "Phone", "EMAIL_ADDRESS": "Email", "IBAN_CODE": "Iban", "US_SSN": "UsSsn", "IP_ADDRESS": "Ip",
          "CRYPTO": "Crypto", "MAC_ADDRESS": "MacAddress"}


def ours(texts, **options):
    """[[(entity, start, end)]] by text."""
    found = pii.spans(Texts(pa.array(texts, pa.large_string())), **options)
    return [[(span.entity, span.start, span.end) for span in each] for each in found]


@pytest.fixture(scope="module")
def presidio():
    """texts -> [[(entity, start, end)]] by Presidio's own recognisers as they come, with no model and no network."""
    patch = pytest.MonkeyPatch()
    patch.setattr(tldextract.tldextract, "TLD_EXTRACTOR", tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None))
    registry = RecognizerRegistry(recognizers=[getattr(predefined_recognizers, f"{name}Recognizer")() for name in THEIRS.values()], supported_languages=["en"])
    engine = AnalyzerEngine(registry=registry, nlp_engine=NoOpNlpEngine(models=[{"lang_code": "en", "model_name": "none"}]), supported_languages=["en"])

    def analyse(texts):
        return [sorted({(hit.entity_type, hit.start, hit.end) for hit in engine.analyze(text, language="en")}, key=lambda hit: hit[1]) for text in texts]

    yield analyse
    patch.undo()


def overlap(one, other):
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def exact(one, other):
    return one == other


def tally(labels, hits, same):
    """{entity: Counter(labels, found, hits, true)}: a label is found, and a hit is true, if `same` says so of a hit or label beside it."""
    counts = defaultdict(Counter)
    for wanted, got in zip(labels, hits, strict=True):
        for label in wanted:
            counts[label[0]].update(labels=1, found=any(same(label, hit) for hit in got))
        for hit in got:
            counts[hit[0]].update(hits=1, true=any(same(hit, label) for label in wanted))
    return counts


def rates(counts):
    """(recall, precision) of one Counter, or of several together; of nothing, 1."""
    total = sum(counts, Counter()) if isinstance(counts, list) else counts
    return total["found"] / total["labels"] if total["labels"] else 1.0, total["true"] / total["hits"] if total["hits"] else 1.0


def widened(spans):
    return [[(WIDE.get(entity, entity), start, end) for entity, start, end in each] for each in spans]


def table(title, labels, hits, others, same):
    """Print recall and precision by entity, ours beside Presidio's, which tells no kinds of telephones and IP addresses apart."""
    mine, any_, theirs = tally(labels, hits, same), tally(widened(labels), widened(hits), same), tally(widened(labels), widened(others), same)
    print(f"\n\n{title}\n\n| entity | n | recall | precision | Presidio's recall | precision |\n|---|---|---|---|---|---|")
    kinds = {name for name in WIDE.values() if mine[name] != any_[name]}
    lines = [(f"{name}, any kind", any_[name], theirs[name]) for name in sorted(kinds)]
    lines += [(name, count, theirs[name] if name in THEIRS and name not in kinds else None) for name, count in sorted(mine.items(), key=lambda item: -item[1]["labels"])]
    for name, count, other in lines:
        print(f"| {name} | {count['labels']} | " + " | ".join(f"{rate:.3f}" for rate in rates(count)), "|", " | ".join(f"{rate:.3f}" for rate in rates(other)) if other else "- | -", "|")
    recall, precision = rates(list(mine.values()))
    print(f"| all | {sum(map(len, labels))} | {recall:.3f} | {precision:.3f} | | |")


def mistakes(texts, labels, hits, same):
    """Lines that say what was missed and what was found wrongly, for the message of a failed test."""
    out = []
    for text, wanted, got in zip(texts, labels, hits, strict=True):
        near = [("missed", label) for label in wanted if not any(same(label, hit) for hit in got)]
        near += [("false", hit) for hit in got if not any(same(hit, label) for label in wanted)]
        out += [f"{kind} {entity} {text[max(0, start - 25) : start]!r} [{text[start:end]!r}] {text[end : end + 10]!r}" for kind, (entity, start, end) in near]
    return sorted(out)


# --- Presidio's own set -----------------------------------------------------------------------------------------------------------------


def test_presidio_synthetic(presidio):
    """1,500 English rows by Microsoft. A hit is true where it overlaps a label of its entity; on any other label it is a false one."""
    data = rows("pii/presidio_synth_v2_en.jsonl.gz")
    texts = [row["full_text"] for row in data]
    labels = [[(span["entity_type"], span["start_position"], span["end_position"]) for span in row["spans"] if span["entity_type"] in PATTERNS] for row in data]
    hits = [[hit for hit in each if hit[0] in PATTERNS] for each in widened(ours(texts))]
    others = [[hit for hit in each if hit[0] in PATTERNS] for each in presidio(texts)]
    mine, theirs = tally(labels, hits, overlap), tally(labels, others, overlap)
    table("presidio_synth_v2_en, a hit counts where it overlaps", labels, hits, others, overlap)
    recall, precision = rates(list(mine.values()))
    wrong = "\n".join(mistakes(texts, labels, hits, overlap))
    assert recall >= 0.95, wrong
    assert precision >= 0.90, wrong
    for entity in PATTERNS:
        assert mine[entity]["labels"] > 10
        for one, other in zip(rates(mine[entity]), rates(theirs[entity]), strict=True):
            assert one >= other, (entity, rates(mine[entity]), rates(theirs[entity]), wrong)


# --- Chinese unit cases -----------------------------------------------------------------------------------------------------------------

RECOGNISERS = {"CNPhoneRecognizer": ["PHONE_CN"], "CNIDCardRecognizer": ["ID_CARD_CN"], "CNBankCardRecognizer": ["CREDIT_CARD"],
               "CNPassportRecognizer": ["PASSPORT", "TRAVEL_PERMIT_CN"], "CNEmailRecognizer": ["EMAIL_ADDRESS"]}


def test_chinese_unit_cases():
    """Every case of another project's recognisers for China: in a sentence by count, alone by whether the value is one at all."""
    cases = [row for row in rows("pii/cn_pii_unit_cases.jsonl.gz") if row["recognizer"] in RECOGNISERS]
    assert len(cases) > 80
    sentences = [row for row in cases if "expected_count" in row]
    for row, found in zip(sentences, ours([row["text"] for row in sentences]), strict=True):
        assert sum(hit[0] in RECOGNISERS[row["recognizer"]] for hit in found) == row["expected_count"], (row, found)
    for row in cases:
        if "list" not in row:
            continue
        valid = not row["list"].startswith("invalid")
        # Eight digits alone may be a permit of a Taiwan resident, so the passport alone answers for what is no passport.
        entities = RECOGNISERS[row["recognizer"]] if valid else RECOGNISERS[row["recognizer"]][:1]
        found = [hit for entity in entities for hit in pii_recognisers.recogniser(entity).analyze(row["text"], [entity])]
        assert any((hit.start, hit.end) == (0, len(row["text"])) for hit in found) == valid, (row, found)


# --- planted values ---------------------------------------------------------------------------------------------------------------------


def as_meant(value):
    """A value without its disguise."""
    value = unicodedata.normalize("NFKC", "".join(c for c in value if c not in pii_planted.INVISIBLE))
    return re.sub("&#(?:64|x40);", "@", value)


def valid(entity, value):
    """Whether other libraries than the generator's own arithmetic take it for a value of this entity."""
    number = re.sub(r"[\s-]", "", value).upper()
    region = {"PHONE_CN": "CN", "PHONE_HK": "HK", "PHONE_TW": "TW", "PHONE_NUMBER": "US"}.get(entity)
    if region:
        parsed = phonenumbers.parse(re.sub("^00", "+", value), region)
        return phonenumbers.is_valid_number(parsed) and (entity == "PHONE_NUMBER" or phonenumbers.region_code_for_number(parsed) == region)
    if entity == "ID_CARD_CN":      # the whole of ric.validate refuses people who are older than the name of their district
        return number.isdigit() and len(number) == 15 or number[-1] == ric.calc_check_digit(number) and ric.get_birth_date(number) is not None
    if entity.startswith("IP"):
        return ipaddress.ip_address(value).is_global == (entity == "IP_ADDRESS")
    if entity == "CRYPTO":
        return value[0] in "T0" or bitcoin.is_valid(value)
    check = {"CREDIT_CARD": luhn, "CREDIT_CODE_CN": uscc, "IBAN_CODE": iban}.get(entity)
    return check is None or check.is_valid(number)


@pytest.mark.parametrize(("make", "least"), [(pii_planted.chinese, 500), (pii_planted.english, 250)], ids=["zh", "en"])
def test_planted_labels_are_right(make, least):
    documents = make()
    assert documents == make()
    assert documents != make(seed=5)
    assert sum(bool(spans) for _, spans in documents) >= least
    assert sum(not spans for _, spans in documents) >= len(documents) // 12
    seen = Counter()
    for text, spans in documents:
        places = [place for _, *span in spans for place in span]
        assert places == sorted(places)
        assert all(0 <= start < end <= len(text) for _, start, end in spans)
        seen.update(entity for entity, _, _ in spans)
        for entity, start, end in spans:
            assert valid(entity, as_meant(text[start:end])), (entity, text[start:end])
    if make is pii_planted.chinese:
        assert set(seen) == set(pii_recognisers.ENTITIES) - {"US_SSN"}
        assert min(seen.values()) >= 15


@pytest.mark.parametrize(("make", "recall", "precision"), [(pii_planted.chinese, 0.98, 0.98), (pii_planted.english, 0.98, 0.98)], ids=["zh", "en"])
def test_planted(presidio, make, recall, precision):
    """Entity, start and end must all be right."""
    documents = make(seed=4) + make(seed=11)
    texts, labels = [text for text, _ in documents], [spans for _, spans in documents]
    hits = ours(texts)
    table(f"planted, {make.__name__}: exact spans", labels, hits, presidio(texts), exact)
    wrong = "\n".join(mistakes(texts, labels, hits, exact))
    found = rates(list(tally(labels, hits, exact).values()))
    assert found[0] >= recall, wrong
    assert found[1] >= precision, wrong


# --- real text --------------------------------------------------------------------------------------------------------------------------

# Hits of any kind in 10,000 characters, true ones too: every one was looked at, and hardly any is false. The web pages hold
# telephones and addresses of offices and sellers, all published; laws, encyclopaedia and handbook hold next to nothing.
PUBLIC = {"raw_zh_law/prc_laws": 0.01, "raw_tw_law/roc_laws_zh_hant": 0.01, "raw_tw_law/roc_laws_en": 0.01, "raw_zh_wiki/cmrc2018_contexts": 0.2,
          "raw_zh_cc/c4zh_duplicated_lines": 0.5, "raw_en_web/c4_demo": 0.8, "raw_en_web/c4_sample": 0.8, "raw_en_web/wiki_demo": 0.2,
          "raw_html_lohelp/libreoffice_help_en_us": 0.1, "raw_html_lohelp/libreoffice_help_zh_cn": 0.1, "raw_html_lohelp/libreoffice_help_zh_tw": 0.1}


@pytest.mark.parametrize("name", PUBLIC)
def test_hardly_a_hit_in_public_text(name):
    """Fewer than one false hit in 10,000 characters was aimed at; of the raw HTML every tenth page is read here."""
    with gzip.open(shared(f"{name}.jsonl.gz"), "rt", encoding="utf-8") as lines:
        texts = [row.get("text") or row["html"] for row in map(json.loads, islice(lines, 0, None, 10 if "html" in name else 1))]
    hits = ours(texts)
    size = sum(map(len, texts))
    kinds = Counter(entity for each in hits for entity, _, _ in each)
    print(f"\n{name}: {kinds.total()} hits in {size:,} characters, {kinds.total() / size * 10_000:.3f} in 10,000: {dict(kinds.most_common())}")
    shown = [f"{entity} {text[max(0, start - 30) : start]!r} [{text[start:end]!r}]" for text, each in zip(texts, hits, strict=True) for entity, start, end in each]
    assert kinds.total() <= max(1, PUBLIC[name] * size / 10_000), "\n".join(shown[:100])


def test_numbers_of_every_region():
    """libphonenumber's own example of each region and type, written internationally in a sentence without a cue word."""
    wanted, found = Counter(), Counter()
    missed = []
    examples = [row for row in rows("pii/libphonenumber_examples.jsonl.gz") if row["country_code"].isdigit()]
    numbers = [phonenumbers.format_number(phonenumbers.parse(f"+{row['country_code']}{row['national']}"), phonenumbers.PhoneNumberFormat.INTERNATIONAL) for row in examples]
    for row, number, hits in zip(examples, numbers, ours([f"We wrote {number} on the door." for number in numbers]), strict=True):
        wanted[row["type"]] += 1
        if any(entity.startswith("PHONE") and (start, end) == (9, 9 + len(number)) for entity, start, end in hits):
            found[row["type"]] += 1
        else:
            missed.append((row["region"], row["type"], number, hits))
    print("\n\nexample numbers of every region, +… as libphonenumber writes them\n\n| type | n | recall |\n|---|---|---|")
    for kind, count in wanted.most_common():
        print(f"| {kind} | {count} | {found[kind] / count:.3f} |")
    for kind in ("mobile", "fixedLine"):
        assert found[kind] >= 0.98 * wanted[kind], missed
    assert found.total() >= 0.95 * wanted.total(), missed
