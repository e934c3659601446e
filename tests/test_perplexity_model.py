"""Perplexity: the kernels against the kenlm package and against slow, obvious twins."""

import base64
import hashlib
import random
import re
import unicodedata
import zlib

import numpy as np
import pytest
import yaml

from gristmill.udfs import assets, cc_net_text, kenlm_trie, perplexity_model
from gristmill.udfs.perplexity_tokens import KINDS, decode, encode, spell

kenlm = pytest.importorskip("kenlm")

MODELS = ("zh.klm", "en.klm")

# A 4-gram model over a b c 一 是 的, weights in 4 and 3 bits: lmplz -o 4 --prune 0 0 0 1, build_binary -v -q 4 -b 3 trie
TINY = (
    "c-qU&O)OBz$yLZGDJihh*U!#KO-"
    "##7%}LQq&d=3P&QD2INXswEO)OC;OD!tS%+FIW<zhg9274f}pAks>2Lg}?BUFY3OdhajhVnt;oKUtLln#Q@K1e2VK<R=y#l4nor3`}E*_SVgi?jF1EO#uP9hl9P^ZjFO"
    "@q_HmX=_q_*3aqrcyMpx^%LnQw?1gvCDB`P!(2;iQthAaS1|LKSRgL2TV1jrgslt0_J=I;+P~nV<9^wEyZs(Bt@hvRu-ISfX|_LwS%1Il9L@c+J}APm+GFYcrz}MFgFF"
    "i|XD^4~{^EH@_h}of+UI07V_#QQ&%XU_@%vn}>-PJ;jM&c_?6KdG&0&9~qSgM5Kh5?(K5evr{Zj4y-qNc3k9kS&|LZBbfALw4{Ttu>-"
    "q)(}dEfI1_x9C^mhXd^U;S~~J~N$+eWg1h_boD#+_xw6?%poGn!Slpar-Yin(q%Y(AZx*LuS9v5#jxLQQZ5}Rx<8i`TF<1o7-"
    "OROOCp`@937(`>qsj*>_oH#Xc5=S^K2j8}>2$2;7(VWi8wfFtF}*(0&-ZBr0|Pch~*<kohI)d-kzF`N8F8VEr6O@~8Km-"
    "p7ZgUI>Z5pmOa#F*JE822>!&fE^ez^son9ZY<?94Csh0tYNQHW!l1{7p&0t(2iY5u}|dC<r@EIv9Yg3S#IW}Uf;A(UA$^uOoi*$hhY**i?8&ShDKfIWYC0}*2Eyg&@jc"
    "}3$rtyL~Vh(bAo`fi%go}jH4ICO;c}N75vh^NB(O20yCkGE)#9mJreJX4tOi-vmN1(DK_9uvTS}Oaj1B~c?J7+E=7|N4nZZ?CI!(|DHDPmyqvV>UTbj(nGzW6Dx2MUK6"
    "FiVQ{Ka^qV>}YVwSf)>=oM))tJSxf_0(V-"
    "dTk?raL8d#2fA`C~7+u8!cWvx2H7p`%Gzx+J_%nR7Gc9lxTRorSF@goS$Uc(>+t#<CMxd8Pwnz<I(lz?>8QLG#ZuvFf<GP`u*dfqh*Dz#+yq+Ig-"
    "SMjog!z%2bOtdN_s8c=$|cYg*!@sVADuZU~AiPy9S}+T(2pH#crRmcChhp|H{<cqjt^bn|H)"
)

TEXTS = [
    "第一条 为了规范事业单位的人事管理，保障事业单位工作人员的合法权益，制定本条例。\n第二条 本条例自２０１４年7月1日起施行。",
    "这家酒店的位置很好，服务员也很热情，下次还会再来。",
    "When the committee met again in March, it didn't change its mind; the report was published as it stood.",
    "Das Wetter ist schön, l’été aussi — “naïve” café… ＦＵＬＬ　ｗｉｄｔｈ １２３",
    "臺灣的正體字與 emoji 😀 和 \U00020000 生僻字",
    "a",
    "的",
    "don't 'quoted' rock'n'roll ''' O''Neill",
    "NUL \x00 byte, \x85 next line, \ufeff mark, so\u00adft hyphen, zero\u200bwidth, \ufffd\r\nsecond line\n\n\nthird",
]
EMPTY = ["", "\n", " \u3000\t\r\n\n", "\u200b\ufe0f"]


def noise(count: int, seed: int = 1) -> list[str]:
    """Random text: all planes, letters that make runs, line breaks, surrogates, control characters."""
    rng = random.Random(seed)
    pool = [chr(rng.randrange(0x110000)) for _ in range(150)] + [chr(rng.randrange(0x500)) for _ in range(150)]
    pool += [*"the of and a in is to    \n\n''’的一是在不了有和人这", "\x00", "\ud800", "\U0001f600", "\U000e0041", "\U0001d7d8"]
    return ["".join(rng.choice(pool) for _ in range(rng.randrange(60))) for _ in range(count)]


def fold(char: str) -> str:
    """One character as perplexity_tokens documents it; a space for whatever only separates."""
    code = ord(char)
    if 0xFE00 <= code < 0xFE10 or 0xE0000 <= code < 0xE0200:
        return " "
    if 0x3040 <= code < 0xD800 or code >= 0x10000:
        return char
    if 0xFF01 <= code <= 0xFF5E:
        char = chr(code - 0xFEE0)
    char = dict(zip("‘’ʼ“”‐‑‒–—−", "'''\"\"------", strict=True)).get(char, char)
    char = char.lower() if len(char.lower()) == 1 else char
    category = unicodedata.category(char)
    if char.isspace() or category in ("Cf", "Zs", "Zl", "Zp"):
        return " "
    return {"Cc": "\ufffd", "Cs": "\ufffd", "Nd": "0"}.get(category, char)


def twin(text: str, kind: str) -> list[list[str]]:
    """Tokens by line, by a regular expression over the classes of the folded characters."""
    lines = []
    for line in text.split("\n"):
        chars = "".join(map(fold, line))
        classes = "".join("L" if ord(c) < 0x2E80 and unicodedata.category(c)[0] in "LM" else c for c in chars)
        pattern = r"L+(?:'L+)*|[^ ]" if kind == "words" else r"[^ ]"
        lines.append([chars[match.start() : match.end()] for match in re.finditer(pattern, classes)])
    return [tokens for tokens in lines if tokens]


def by_kenlm(path: str, texts: list[str], kind: str) -> np.ndarray:
    model, out = kenlm.Model(path), []
    for text in texts:
        lines = twin(text, kind)
        length = sum(len(tokens) + 1 for tokens in lines)
        total = sum(model.score(" ".join(tokens)) for tokens in lines)
        out.append(10 ** (-total / length) if length else np.nan)
    return np.array(out)


def load(name: str) -> perplexity_model.Model:
    return perplexity_model.load(str(assets.resolve(f"conf/models/{name}")))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "tiny.klm"
    path.write_bytes(zlib.decompress(base64.b85decode(TINY)))
    return str(path)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_equal_their_slow_twin(kind):
    texts = TEXTS + EMPTY + noise(400)
    expected = ["\n".join(" ".join(tokens) for tokens in twin(text, kind)) for text in texts]
    assert encode(*spell(*decode(texts), kind)) == expected


def test_golden_tokens():
    text = "Don’t panic —ＡＢ１２， “x”!\r\n\n 你好，React的世界\u3000٣9\x00"
    assert encode(*spell(*decode([text]), "words")) == ['don\'t panic - ab 0 0 , " x " !\n你 好 , react 的 世 界 0 0 \ufffd']
    assert encode(*spell(*decode(["l'été 'x'"]), "characters")) == ["l ' é t é ' x '"]
    with pytest.raises(ValueError, match="characters, words"):
        spell(*decode(["x"]), "syllables")


@pytest.mark.parametrize("name", MODELS)
def test_shipped_models_score_as_kenlm_does(name):
    texts = TEXTS + EMPTY + noise(300)
    model = load(name)
    assert model._fast
    got = model.perplexity(*decode(texts))
    np.testing.assert_allclose(got, by_kenlm(model.path, texts, model.tokens), rtol=1e-4)
    assert np.isnan(got[len(TEXTS) : len(TEXTS) + len(EMPTY)]).all()
    assert np.isfinite(got[: len(TEXTS)]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_fourgram_model_scores_as_kenlm_does(tiny, kind):
    rng = random.Random(2)
    texts = ["".join(rng.choice("abc一是的xz \n") for _ in range(rng.randrange(400))) for _ in range(300)]
    model = perplexity_model.load(tiny, tokens=kind)
    assert model._fast
    assert model.counts == (9, 30, 82, 76)
    np.testing.assert_allclose(model.perplexity(*decode(texts)), by_kenlm(tiny, texts, kind), rtol=1e-4)


def test_neither_batch_nor_offsets_matter():
    model = load("zh.klm")
    texts = TEXTS + noise(50, seed=3) + EMPTY
    codes, offsets = decode(texts)
    whole = model.perplexity(codes, offsets)
    alone = np.concatenate([model.perplexity(*decode([text])) for text in texts])
    np.testing.assert_array_equal(whole, alone)
    np.testing.assert_array_equal(whole[7:], model.perplexity(codes, offsets[7:]))
    assert model.perplexity(codes, offsets[:1]).shape == (0,)


def test_a_long_line_scores_as_kenlm_does():
    model = load("zh.klm")
    line = "".join(TEXTS * 5).replace("\n", " ")
    assert len(line) > 1000
    np.testing.assert_allclose(model.perplexity(*decode([line])), by_kenlm(model.path, [line], model.tokens), rtol=1e-4)


def test_damaged_text_is_less_likely():
    rng = random.Random(4)
    for name, clean, other in (("zh.klm", TEXTS[0], "gbk"), ("zh.klm", TEXTS[1], "latin-1"), ("en.klm", TEXTS[2], "utf-16-le")):
        shuffled = "".join(rng.sample(clean, len(clean)))
        mojibake = clean.encode("utf-8").decode(other, "replace")
        scores = load(name).perplexity(*decode([clean, shuffled, mojibake]))
        assert scores[0] * 3 < min(scores[1:])


@pytest.mark.parametrize("name", MODELS)
def test_manifest_names_the_file(name):
    path = assets.resolve(f"conf/models/{name}")
    entry = yaml.safe_load(path.with_name("manifest.yaml").read_text(encoding="utf-8"))[name]
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert entry["bytes"] == path.stat().st_size <= 8_000_000
    assert entry["tokens"] in KINDS
    assert all(source["licence"] and "SA" not in source["licence"] for source in entry["corpus"])


def test_any_other_kenlm_file_goes_through_the_package(tmp_path):
    arpa = tmp_path / "two.arpa"
    arpa.write_text(
        "\\data\\\nngram 1=4\nngram 2=2\n\n\\1-grams:\n-2\t<unk>\t0\n0\t<s>\t-0.5\n-1\t</s>\t0\n-0.7\ta\t-0.25\n\n"
        "\\2-grams:\n-0.1\t<s> a\n-0.3\ta a\n\n\\end\\\n"
    )
    model = perplexity_model.load(str(arpa), tokens="characters")
    # <s> a: -0.1, a a: -0.3, a </s>: -0.25 - 1; in the second line <s> x: -0.5 - 2, x </s>: -1
    expected = [10 ** ((0.1 + 0.3 + 1.25) / 3), 10 ** ((0.1 + 0.3 + 1.25 + 2.5 + 1) / 5), np.nan]
    np.testing.assert_allclose(model.perplexity(*decode(["Aa", "aa\nx", " "])), expected, rtol=1e-5)


def test_what_cannot_be_loaded_says_why(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.klm"):
        perplexity_model.load(str(tmp_path / "none.klm"), tokens="words")
    with pytest.raises(ValueError, match=r"tokens is None.*manifest\.yaml"):
        perplexity_model.load(tiny)
    with open(tiny, "rb") as file:
        data = file.read()
    short = tmp_path / "short.klm"
    for size in (150, 200, 300, 400, 700, 900, len(data) - 1):
        short.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"short\.klm is a damaged KenLM file"):
            perplexity_model.load(str(short), tokens="words")
    (tmp_path / "manifest.yaml").write_text("short.klm: {tokens: words}")
    short.write_bytes(data)
    assert perplexity_model.load(str(short)).tokens == "words"


def test_header_of_another_file_is_none():
    assert kenlm_trie.read_header(np.zeros(0, np.uint8)) is None
    assert kenlm_trie.read_header(np.frombuffer(b"\\data\\ ngram 1=3" * 30, np.uint8)) is None


def test_cc_net_text():
    cases = {
        "  Été １, 12 «Ü»\n“Ｘ”…\x07 ": 'ete 0, 00 "u""ｘ"...',
        "价格：１００％（约）—好。": "价格:000%(约) - 好.",
        "가": "\u1100\u1161",  # taken apart, and left so
        " \n\t": "",
        "": "",
    }
    for text, expected in cases.items():
        assert cc_net_text.normalise(text) == expected


def test_a_cc_net_pair(tiny, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(f"{TEXTS[2]}\nabc abc 一是的\n" * 20, encoding="utf-8")
    name = str(tmp_path / "sp")
    sentencepiece.SentencePieceTrainer.train(input=str(corpus), model_prefix=name, vocab_size=60, hard_vocab_limit=False, minloglevel=2)
    model = perplexity_model.load(tiny, sentencepiece=f"{name}.model")
    pieces = sentencepiece.SentencePieceProcessor(model_file=f"{name}.model")
    line = " ".join(pieces.encode("abc 0一的是", out_type=str))
    expected = 10 ** (-kenlm.Model(tiny).score(line) / (len(line.split()) + 1))
    got = model.perplexity(*decode(["ABC \n7一的是", "\n", "\ud800"]))
    np.testing.assert_allclose(got[:2], [expected, np.nan], rtol=1e-6)
    assert np.isfinite(got[2])
