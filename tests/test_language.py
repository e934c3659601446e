"""language, quality, perplexity: the kernel against the fastText library, labelled text, and what the operators promise."""

import csv
import gzip
import json
import subprocess
import sys
from functools import cache

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.udfs import assets, fasttext_model, models, registry
from gristmill.udfs.errors import AssetError, RecipeError
from gristmill.udfs.texts import Texts
from shared import ROOT, rows

LID = str(assets.resolve("conf/models/lid.176.ftz"))
DATA = ROOT / "tests/data/sample"
LAWS = [line for line in gzip.decompress((DATA / "zh_web.jsonl.gz").read_bytes()).split(b"\n") if line.startswith(b'{"url": "law/')]
SAMPLE = sorted({json.loads(line)["content"] for line in LAWS})[:40]
with open(DATA / "en_web.csv", encoding="utf-8", newline="") as file:
    EN = sorted({row["content"] for row in csv.DictReader(file)})[:40]
ODD = ["", " ", "\n", "12345", "</s>", "x </s> y", "__label__en foo", "__label__", "a", "é", "<", ">", "<>", "hello\0world", "\t\v\f\r",
       "。", "𠀀𠀁", "e\u0301\u0301", "日本語テキスト", "한국어 문장", "кириллица", "a" * 3000, "中" * 3000, "你好 world 你好\nworld",
       "\u3000\u3000第一条"]
RUN = settings(max_examples=150, deadline=None, derandomize=True)


def texts(values):
    return Texts(pa.array(values, pa.large_string()))


def library(model, labels, values):
    """What fastText says, float32[n, labels]; a literal </s> ends its line early, so it reads as a space here too."""
    out = np.zeros((len(values), len(labels)), np.float32)
    for row, value in zip(out, values, strict=True):
        value = " ".join("" if token == "</s>" else token for token in value.replace("\n", " ").split(" "))
        for probability, label in model.f.predict(value + "\n", -1, 0.0, "strict"):
            row[labels.index(label.removeprefix("__label__"))] = min(probability, 1)
    return out


@cache
def lid():
    return fasttext.load_model(LID), fasttext_model.load(LID)


def test_kernel_equals_the_library():
    model, ours = lid()
    values = SAMPLE + EN + ODD
    assert np.abs(ours.probabilities(*texts(values).utf8) - library(model, ours.labels, values)).max() < 1e-4


TEXT = st.one_of(st.text(st.characters(codec="utf-8")), st.lists(st.sampled_from(ODD[:19]), max_size=5).map(" ".join))


@RUN
@given(st.lists(TEXT, max_size=4))
def test_kernel_equals_the_library_on_random_text(values):
    values = [value for value in values if not {"\t", "\v", "\f", "\r", "\0"} & set(value) or "</s>" not in value]
    model, ours = lid()
    found = ours.probabilities(*texts(values).utf8)
    assert len(values) == 0 or np.abs(found - library(model, ours.labels, values)).max() < 1e-4


@RUN
@given(st.binary(max_size=60))
def test_bytes_that_are_not_utf8_give_what_the_library_gives(data):
    if b"\n" in data or b"</s>" in data:
        return
    model, ours = lid()
    found = ours.probabilities(np.frombuffer(data, np.uint8), np.array([0, len(data)]))[0]
    expected = np.zeros_like(found)
    for probability, label in model.f.predict(data + b"\n", -1, 0.0, "replace"):
        expected[ours.labels.index(label.removeprefix("__label__"))] = min(probability, 1)
    assert np.abs(found - expected).max() < 1e-4


KINDS = {
    "softmax_words": {"loss": "softmax", "wordNgrams": 3, "minn": 0, "maxn": 0, "bucket": 1000},
    "hs_characters": {"loss": "hs", "wordNgrams": 1, "minn": 1, "maxn": 3, "bucket": 500},
    "ova_both": {"loss": "ova", "wordNgrams": 2, "minn": 2, "maxn": 2, "bucket": 777},
    "ns_words": {"loss": "ns", "wordNgrams": 1, "minn": 0, "maxn": 0},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quantised", [None, {}, {"cutoff": 300, "qnorm": True}, {"qout": True, "dsub": 3}], ids=str)
def test_kernel_equals_the_library_for_every_kind_of_model(tmp_path, kind, quantised):
    """All losses, word and character n-grams, plain and quantised; the training text is the sample, its labels are arbitrary."""
    file, path = tmp_path / "train.txt", str(tmp_path / "m.bin")
    lines = [line for doc in SAMPLE[:20] + EN for line in doc.split("\n") if line.strip()]
    assert len(lines) > 300                               # fastText quantises the output from 256 labels on
    file.write_text("\n".join(f"__label__{n % 300} {' '.join(line.split())}" for n, line in enumerate(lines)), encoding="utf-8")
    # Twelve threads: with fewer than ten fastText leaves part of its matrix as it finds the memory.
    model = fasttext.train_supervised(str(file), dim=7, epoch=2, lr=0.3, minCount=1, thread=12, verbose=0, **KINDS[kind])
    if quantised is not None:
        model.quantize(input=str(file), retrain=False, verbose=0, thread=1, **quantised)
    model.save_model(path)
    ours, values = fasttext_model.load(path), lines[:200:4] + SAMPLE[20:23] + ODD
    difference = np.abs(ours.probabilities(*texts(values).utf8) - library(model, ours.labels, values))
    step = 16 / 512 / 4 if kind.startswith(("ova", "ns")) else 0      # their sigmoid is a table: the last bit may move a value by one step
    assert difference.max() < step + 1e-4
    assert np.mean(difference < 1e-4) > 0.99


@pytest.mark.parametrize("content", [b"", b"hello", b"\xba\x16O/\x0c\x00\x00\x00" + b"\x00" * 50])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "bad.ftz"
    path.write_bytes(content)
    with pytest.raises(AssetError, match=r"bad\.ftz"):
        models.language(texts(["a"]), model=str(path))


def test_a_model_that_is_cut_short_is_refused(tmp_path):
    path = tmp_path / "cut.ftz"
    with open(LID, "rb") as file:
        path.write_bytes(file.read()[:500_000])
    with pytest.raises(AssetError, match="cut"):
        models.language(texts(["a"]), model=str(path))


def language(values, **parameters):
    found = models.language(texts(values), **parameters)
    return list(zip(found["language"].to_pylist(), found["language_label"].to_pylist(), strict=True))


def labels(values, **parameters):
    return [label for _, label in language(values, **parameters)]


def test_labels_follow_the_letters_of_the_text():
    """lid.176 alone calls half of these ja, ko, sr or en."""
    assert labels(["不错", "哈哈哈哈", "春眠不覺曉", "床前明月光，疑是地上霜。", "好", "龘"], expect=("zh", "en")) == ["zh"] * 6
    assert labels(["東京に行きます", "안녕하세요", "Wie geht es Ihnen heute?"]) == ["ja", "ko", "de"]
    assert language(["안녕하세요", "Привет, как дела?"], expect=("zh",)) == [(0.0, "und")] * 2
    assert language(["", " \n", "12345 67", "……", "😀"]) == [(0.0, "und")] * 5


def test_expected_languages_decide_value_and_label():
    (free, label), = language(["Bonjour, je suis très content de vous voir"])
    (expected, other), = language(["Bonjour, je suis très content de vous voir"], expect=("zh", "en"))
    assert (label, other) == ("fr", "en")
    assert free > 0.9
    assert expected < 0.1


def test_zh_takes_in_its_neighbours_unless_they_are_expected():
    cantonese = ["我哋今日去邊度食飯呀？佢話唔知喎，你點睇呢件事嘅？"]
    assert labels(cantonese) == ["yue"]
    assert labels(cantonese, expect=("zh", "yue")) == ["yue"]
    (value, label), = language(cantonese, expect=("zh", "en"))
    assert (label, value) == ("zh", pytest.approx(1))


def test_labels_with_a_script_need_its_letters():
    """GlotLID's labels."""
    assert models._needed(("cmn_Hani", "lzh_Hani", "jpn_Jpan", "kor_Hang", "eng_Latn", "rus_Cyrl")).tolist() == [1, 1, 2, 4, 8, 8]


def test_only_the_first_characters_are_read():
    long = EN[0][:300] + "中文" * 5000
    assert language([long], max_chars=300) == language([EN[0][:300]], max_chars=0)
    assert language([EN[0]], max_chars=0) == language([EN[0]], max_chars=len(EN[0]))


def test_an_unknown_label_is_refused_with_the_nearest():
    with pytest.raises(RecipeError, match=r"'zhs'.*zh"):
        models.language(texts(["a"]), expect=("zhs",))


def precision_recall(found, gold):
    return (found & gold).sum() / found.sum(), (found & gold).sum() / gold.sum()


def test_languages_of_sentences():
    """75 languages, 1,000 sentences each; for en, nine of them are unknown to lid.176, most of what it calls en wrongly."""
    sentences = rows("langid/lingua_sentences.jsonl.gz")
    gold, values = np.array([row["lang"] for row in sentences]), [row["text"] for row in sentences]
    found = models.language(texts(values))
    value, label = found["language"].to_numpy(), np.array(found["language_label"].to_pylist())
    assert (label == gold).mean() >= 0.78
    precision, recall = precision_recall(label == "zh", gold == "zh")
    assert precision >= 0.997
    assert recall >= 0.994
    precision, recall = precision_recall((label == "en") & (value >= 0.65), gold == "en")
    assert precision >= 0.90
    assert recall >= 0.96
    known = np.isin(gold, fasttext_model.load(LID).labels)
    precision, _ = precision_recall(((label == "en") & (value >= 0.65))[known], (gold == "en")[known])
    assert precision >= 0.94
    found = models.language(texts(values), expect=("zh", "en"))
    value, label = found["language"].to_numpy(), np.array(found["language_label"].to_pylist())
    precision, recall = precision_recall((label == "zh") & (value >= 0.65), gold == "zh")
    assert precision >= 0.997
    assert recall == 1


@pytest.mark.parametrize(("path", "field", "label", "floor"), [
    ("raw_zh_poetry/tang_song_poems.jsonl.gz", "text", "zh", 0.994),       # classical, Traditional; 0.755 by lid.176 alone
    ("toxicity/cold_dev.jsonl.gz", "TEXT", "zh", 0.995),                   # short comments; 0.947
    ("raw_zh_cc/c4zh_duplicated_lines.jsonl.gz", "text", "zh", 0.993),     # web lines, mixed; 0.926
    ("t2s/2kenize_hk_lit.jsonl.gz", "trad", "zh", 1.0),
    ("raw_zh_wiki/cmrc2018_contexts.jsonl.gz", "text", "zh", 1.0),
    ("raw_en_web/c4_sample.jsonl.gz", "text", "en", 0.996),
    ("decontam/humaneval.jsonl.gz", "prompt", "en", 0.94),                 # Python code with English remarks
])
def test_language_of_real_documents(path, field, label, floor):
    found = labels([row[field] for row in rows(path)][:8000], expect=("zh", "en") if label == "zh" else ())
    assert np.mean(np.array(found) == label) >= floor


# ------------------------------------------------------------------ quality


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of sample lines (good) against the same lines with their characters in disorder (bad)."""
    folder = tmp_path_factory.mktemp("quality")
    random = np.random.default_rng(7)
    good = [line.strip() for doc in SAMPLE + EN for line in doc.split("\n") if len(line.strip()) > 30]
    bad = ["".join(random.permutation(list(line))) for line in good]
    (folder / "good.txt").write_text("\n".join(good), encoding="utf-8")
    with gzip.open(folder / "bad.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps({"body": line}) + "\n" for line in bad))
        file.write(json.dumps({"body": None}) + "\n")
    command = [sys.executable, str(ROOT / "scripts/train_quality"), "good.txt", "bad.jsonl.gz", "--out", "m/quality.ftz",
               "--field", "body", "--epochs", "20", "--buckets", "3000"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return folder, good, bad, result.stdout, command


def test_train_quality_makes_a_model_that_separates(trained):
    folder, good, bad, out, _ = trained
    entry = assets.yaml.safe_load((folder / "m/manifest.yaml").read_text(encoding="utf-8"))["quality.ftz"]
    assert entry["sha256"] in out
    assert entry["bytes"] < 500_000
    assert entry["held_out"]["auc"] > 0.95
    value = models.quality(texts(good[:50] + bad[:50]), model=str(folder / "m/quality.ftz"))["quality"].to_numpy()
    assert np.mean(value[:50] >= 0.5) > 0.9
    assert np.mean(value[50:] < 0.5) > 0.9


def test_train_quality_makes_the_same_file_twice(trained):
    folder, _, _, _, command = trained
    before = (folder / "m/quality.ftz").read_bytes()
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    assert (folder / "m/quality.ftz").read_bytes() == before


def test_train_quality_refuses_an_empty_side(trained):
    folder = trained[0]
    (folder / "none.txt").write_text("\n", encoding="utf-8")
    command = [*trained[4][:2], "good.txt", "none.txt", "--out", "x.ftz"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "none.txt" in result.stderr


def test_quality_contract(trained):
    model = str(trained[0] / "m/quality.ftz")
    found = models.quality(texts(["", None, "中文 text\nmore", SAMPLE[0]]), model=model)["quality"].to_pylist()
    assert found[:2] == [0.0, None]
    assert all(0 <= value <= 1 for value in found[2:])
    good, bad = (models.quality(texts(SAMPLE), model=model, label=label)["quality"].to_numpy() for label in ("good", "__label__bad"))
    assert np.abs(good + bad - 1).max() < 1e-4
    assert models.quality(texts([SAMPLE[0]]), model=model, max_chars=50) == models.quality(texts([SAMPLE[0][:50]]), model=model)
    with pytest.raises(RecipeError, match="'best'"):
        models.quality(texts(["a"]), model=model, label="best")


def test_quality_reads_han_characters_as_words():
    assert models.classifier_text(texts(["中文ab c\nかな", "x", ""])).array.to_pylist() == [" 中  文 ab c\n か  な ", "x", ""]
    assert models.classifier_text(texts(["中文ab"]), split_han=False, max_chars=3).array.to_pylist() == ["中文a"]


# --------------------------------------------------------------- perplexity

ZH, EN_MODEL = "conf/models/zh.klm", "conf/models/en.klm"


def test_perplexity_is_null_without_a_token_and_above_one_with():
    found = models.perplexity(texts(["", " \n\u3000", None, SAMPLE[0]]), model=ZH)["perplexity"].to_pylist()
    assert found[:3] == [None, None, None]
    assert found[3] > 1


def test_perplexity_tells_language_from_noise():
    noise = "".join(np.random.default_rng(1).permutation(list(SAMPLE[0])))
    clean, damaged = models.perplexity(texts([SAMPLE[0], noise]), model=ZH)["perplexity"].to_pylist()
    assert damaged > 3 * clean


def test_buckets_follow_the_cut_offs():
    values = [*SAMPLE[:20], "", None]
    perplexity = models.perplexity(texts(values), model=ZH)["perplexity"].to_pylist()
    head, tail = (float(np.quantile(perplexity[:20], share)) for share in (0.3, 0.6))
    found = models.perplexity_bucket(texts(values), model=ZH, head=head, tail=tail)["perplexity_bucket"].to_pylist()
    assert found == [None if p is None else "head" if p < head else "middle" if p < tail else "tail" for p in perplexity]
    assert set(found) == {"head", "middle", "tail", None}


def test_buckets_of_the_manifest():
    low, high = (models.perplexity_model.manifest_entry(str(assets.resolve(ZH)))["buckets"][key] for key in ("head", "middle"))
    assert (models.perplexity_bucket(texts(SAMPLE), model=ZH)["perplexity_bucket"]
            == models.perplexity_bucket(texts(SAMPLE), model=ZH, head=low, tail=high)["perplexity_bucket"])


def test_bucket_and_perplexity_score_once(monkeypatch):
    calls = []
    score = models.perplexity_model.Model.perplexity
    monkeypatch.setattr(models.perplexity_model.Model, "perplexity", lambda *args: calls.append(1) or score(*args))
    batch = texts(SAMPLE + EN)
    parameters = {"model": {"zh": ZH, "en": EN_MODEL, "default": EN_MODEL}}
    registry.apply(models.perplexity, batch, parameters)
    registry.apply(models.perplexity_bucket, batch, {**parameters, "head": 100.0, "tail": 200.0})
    assert len(calls) == 2      # one a language
    models.perplexity(batch, model=ZH)
    assert len(calls) == 3


def test_missing_knowledge_is_an_error(tmp_path):
    path = tmp_path / "my.klm"
    path.write_bytes(assets.resolve(ZH).read_bytes())
    with pytest.raises(AssetError, match="tokens"):
        models.perplexity(texts(["中"]), model=str(path))
    assert models.perplexity(texts(["中文"]), model=str(path), tokens="words") == models.perplexity(texts(["中文"]), model=ZH)
    with pytest.raises(RecipeError, match="head and tail"):
        models.perplexity_bucket(texts(["中"]), model=str(path), tokens="words")
    with pytest.raises(AssetError):
        models.perplexity(texts(["a"]), model=LID, tokens="words")


@pytest.mark.parametrize("name", ["quality", "perplexity", "perplexity_bucket"])
def test_batches_and_offsets_do_not_matter(trained, name):
    parameters = {"model": str(trained[0] / "m/quality.ftz") if name == "quality" else ZH}
    parameters |= {"head": 100.0, "tail": 300.0} if name == "perplexity_bucket" else {}
    values = [SAMPLE[0], None, "", "x\x00y", EN[0], "\u0301\U0010ffff", *ODD]
    operator = registry.OPERATORS[name]
    whole = operator(texts(values), **parameters)[name]
    for cut in (1, 3, 7):
        parts = [operator(texts(part), **parameters)[name] for part in (values[:cut], values[cut:])]
        assert pa.concat_arrays(parts) == whole
    assert operator(Texts(pa.array(["zz", *values, "zz"])[1:-1]), **parameters)[name] == whole
