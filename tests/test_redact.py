"""`redact` end to end: what is written, what is counted, that nothing found leaks, the same on every engine, run twice, killed."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

import pii_planted
from gristmill.jobs import ingest, passport, recipe, redact, report
from gristmill.udfs.errors import AssetError, ErrorRateError, InputError, OutputError, RecipeError

KEY = "k" * 32
SECTION = {"email": "mask", "phone_cn": "mask", "id_card_cn": "hash", "bank_card": "fake", "wechat": "remove", "ip": "none", "api_key": "drop", "key_env": "PII_KEY"}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("PII_KEY", KEY)


def settings(tmp_path, section, name="out", **more):
    data = {"name": "r", "workdir": str(tmp_path / name), "raw": {"path": str(tmp_path / "raw"), "id": "url"}, "redact": section, **more}
    (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    return recipe.parse(data)


def run(tmp_path, texts, section=SECTION, name="out", engine="local", **more):
    """(kept rows by id, dropped rows by id, passport)."""
    (tmp_path / "raw").mkdir(exist_ok=True)
    if isinstance(texts, list):
        texts = {f"d{k:04d}": text for k, text in enumerate(texts)}
    lines = [json.dumps({"url": id_, "text": text}, ensure_ascii=False) for id_, text in texts.items()]
    (tmp_path / "raw/a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    parsed = settings(tmp_path, section, name, **more)
    ingest.run(parsed, engine)
    sealed = redact.run(parsed, engine)
    return rows(tmp_path / name / "redact/kept"), rows(tmp_path / name / "redact/dropped"), sealed


def rows(folder):
    return {row["id"]: row for file in sorted(Path(folder).glob("*.parquet")) for row in pq.read_table(file).to_pylist()}


TEXTS = {
    "a": "𠀀信箱a.b@qq.com，再写a.b@qq.com与c@163.com；手机13812345678。",
    "b": "身份证号110101199003077475，卡号4111 1111 1111 1111，微信号：abc_12345；IP 8.8.4.100。",
    "c": "key sk-" + "aB3dE6gH9jK2mN5pQ8sT1vW4" + "yZ7 and a.b@qq.com",
    "d": "第十二条 没有个人信息。", "e": "", "f": "12345678901 ISBN 978-7-301-12345-6",
}


def test_what_is_written_and_counted(tmp_path):
    kept, dropped, sealed = run(tmp_path, TEXTS)
    assert kept["a"]["text"] == "𠀀信箱<EMAIL_1>，再写<EMAIL_1>与<EMAIL_2>；手机<PHONE_1>。"
    assert kept["a"]["pii"] == [{"entity": "EMAIL_ADDRESS", "count": 3}, {"entity": "PHONE_CN", "count": 1}]
    assert kept["a"]["pii_count"] == 4
    text = kept["b"]["text"]
    assert text.startswith("身份证号<ID_CARD_")
    assert "微信号：；IP 8.8.4.100。" in text
    assert not [value for value in ("110101199003077475", "4111 1111", "abc_12345") if value in text]
    assert {kept[id_]["text"] for id_ in "def"} == {TEXTS[id_] for id_ in "def"}
    assert list(dropped) == ["c"]
    assert dropped["c"]["why"] == [{"rule": "redact:API_KEY", "value": 1.0, "evidence": None}]
    assert dropped["c"]["text"] == "key <API_KEY_1> and <EMAIL_1>"
    found = sealed["entities"]
    assert found["EMAIL_ADDRESS"] == {"action": "mask", "threshold": 0.5, "values": 4, "documents": 2}
    assert sealed["rows"] == {"rows": 6, "kept": 5, "dropped": 1, "errors": 0}
    assert any("IP_ADDRESS" in limit for limit in sealed["limits"])


def everything(folder):
    """All that a job wrote, as one string: Parquet decoded, JSON and pages as they are."""
    out = []
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix == ".parquet":
            out.append(json.dumps(pq.read_table(path).to_pylist(), ensure_ascii=False, default=str))
        elif path.is_file():
            out.append(path.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(out)


def test_no_value_that_was_found_is_anywhere(tmp_path, capsys):
    cases = pii_planted.chinese(seed=21, n=150) + pii_planted.english(seed=21, n=60)
    section = {"default": "mask", "id_card_cn": "hash", "email": "fake", "passport": "remove", "api_key": "drop", "key_env": "PII_KEY"}
    kept, dropped, sealed = run(tmp_path, [text for text, _ in cases], section)
    report.write(recipe.parse(yaml.safe_load((tmp_path / "out.yaml").read_text(encoding="utf-8"))), "redact", sealed)
    written = everything(tmp_path / "out/redact")
    assert KEY not in written
    assert len(kept) + len(dropped) == len(cases)
    assert len(dropped) > 3
    import pyarrow as pa

    from gristmill.udfs import pii
    from gristmill.udfs.texts import Texts

    values = {(span.entity, text[span.start : span.end]) for (text, _), spans in zip(cases, pii.spans(Texts(pa.array([t for t, _ in cases]))), strict=True) for span in spans}
    assert len(values) > 300
    assert not [found for found in values if len(found[1]) > 6 and found[1] in written]


def test_twice_changes_nothing(tmp_path):
    texts = [text for text, _ in pii_planted.chinese(seed=22, n=200) + pii_planted.english(seed=22, n=80)]
    texts += ["1381234a@b-mail.com5678 见", "电话1381234a@b-mail.com5678"]            # what `remove` would join
    for action in ("mask", "hash", "fake", "remove"):
        section = {"default": action} | ({"key_env": "PII_KEY"} if action in ("hash", "fake") else {})
        kept, _, first = run(tmp_path, texts, section, f"{action}-1")
        again, _, _ = run(tmp_path, {id_: row["text"] for id_, row in kept.items()}, section, f"{action}-2")
        assert first["rows"]["kept"] == len(texts)
        changed = [(kept[id_]["text"], again[id_]["text"]) for id_ in kept if again[id_]["text"] != kept[id_]["text"]]
        assert not changed, (action, changed[:2])


def test_the_same_job_again_does_nothing_and_another_key_is_another_job(tmp_path, monkeypatch):
    _, _, sealed = run(tmp_path, TEXTS)
    parsed = settings(tmp_path, SECTION)
    stamp = (tmp_path / "out/redact/passport.json").stat().st_mtime_ns
    assert redact.run(parsed, "local")["digest"] == sealed["digest"]
    assert (tmp_path / "out/redact/passport.json").stat().st_mtime_ns == stamp
    monkeypatch.setenv("PII_KEY", "another key of 32 bytes, or more")
    with pytest.raises(Exception, match="key was"):
        redact.run(parsed, "local")
    assert redact.run(parsed, "local", True)["digest"] != sealed["digest"]


def test_allow_lists_thresholds_and_defaults(tmp_path):
    texts = {"a": "to ops@corp-mail.com and eve@corp-mail.com or a@b-mail.com", "b": "电话 13812345678，或 13987654321"}
    section = {"default": "mask", "email": {"allow": ["OPS@corp-mail.com", "/.*@b-mail\\.com/"]}, "phone_cn": {"action": "mask", "allow": ["+86 139-8765-4321"]}}
    kept, _, sealed = run(tmp_path, texts, section)
    assert kept["a"]["text"] == "to ops@corp-mail.com and <EMAIL_1> or a@b-mail.com"
    assert kept["b"]["text"] == "电话 <PHONE_1>，或 13987654321"
    assert len(sealed["entities"]) == 23
    high = {"default": "mask", "phone_cn": {"action": "mask", "threshold": 0.99}}
    assert run(tmp_path, texts, high, "high")[0]["b"]["text"] == texts["b"]


@pytest.mark.parametrize(("section", "message"), [
    ({}, "names no entity"),
    ({"emial": "mask"}, "Did you mean 'email'"),
    ({"email": "msk"}, "redact.email.action"),
    ({"email": {"action": "mask", "threshold": 2}}, "redact.email.threshold"),
    ({"email": "hash"}, "need a key"),
    ({"email": "fake", "key_env": "A", "key_file": "b"}, "one of them"),
    ({"person": "mask"}, "found by a model"),
    ({"email": {"allow": ["/(/"]}}, "redact.email"),
])
def test_wrong_sections(tmp_path, section, message):
    with pytest.raises(RecipeError, match=message):
        settings(tmp_path, section)


@pytest.mark.parametrize("value", [None, "", "short"])
def test_a_key_that_is_missing_or_short_is_an_error_before_any_work(tmp_path, monkeypatch, value):
    run(tmp_path, TEXTS, {"email": "mask"})
    monkeypatch.delenv("PII_KEY")
    if value is not None:
        monkeypatch.setenv("PII_KEY", value)
    parsed = settings(tmp_path, {"email": "hash", "key_env": "PII_KEY"})
    before = sorted((tmp_path / "out").rglob("*"))
    with pytest.raises(RecipeError, match="openssl rand"):
        redact.run(parsed, "local", True)
    assert sorted((tmp_path / "out").rglob("*")) == before


def test_a_key_from_a_file(tmp_path):
    (tmp_path / "key").write_text(KEY + "\n")
    section = {"email": "hash"}
    one = run(tmp_path, TEXTS, section | {"key_file": str(tmp_path / "key")})[0]
    other = run(tmp_path, TEXTS, section | {"key_env": "PII_KEY"}, "env")[0]
    assert one["a"]["text"] == other["a"]["text"] != TEXTS["a"]


def test_a_column_of_another_kind_is_refused(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.jsonl").write_text('{"url": "a", "text": "x", "pii": "mine"}\n')
    parsed = settings(tmp_path, {"email": "mask"})
    ingest.run(parsed, "local")
    with pytest.raises(InputError, match="column 'pii'"):
        redact.run(parsed, "local")


def test_a_document_that_cannot_be_searched_goes_without_its_text(tmp_path, monkeypatch):
    from gristmill.udfs import pii

    find = pii.spans

    def stumbles(texts, *rest, **more):
        if any("BOOM" in (text or "") for text in texts.array.to_pylist()):
            raise TimeoutError("a pattern")
        return find(texts, *rest, **more)

    monkeypatch.setattr(pii, "spans", stumbles)
    texts = TEXTS | {"z": "BOOM 13812345678"}
    kept, dropped, sealed = run(tmp_path, texts, max_error_rate=0.5)
    assert dropped["z"]["why"] == [{"rule": "error:redact", "value": None, "evidence": "TimeoutError"}]
    assert dropped["z"]["text"] is None
    assert "<EMAIL_1>" in kept["a"]["text"]
    assert sealed["rows"]["errors"] == 1
    with pytest.raises(ErrorRateError):
        run(tmp_path, texts, name="strict", max_error_rate=0.0)


@pytest.mark.parametrize("hidden", ["hash", "none"])
def test_dropped_text_is_hidden_as_the_recipe_says(tmp_path, hidden):
    _, dropped, _ = run(tmp_path, TEXTS, dropped_text=hidden)
    assert dropped["c"]["text"] is None if hidden == "none" else len(dropped["c"]["text"]) == 64


def test_samples_are_masked(tmp_path):
    run(tmp_path, TEXTS | {f"x{k}": f"号码 1381234{k:04d} 与 {k}@qq.com" for k in range(30)}, {**SECTION, "samples": 5})
    shown = json.loads((tmp_path / "out/redact/samples.json").read_text(encoding="utf-8"))
    assert len(shown["PHONE_CN"]) == 5
    assert all("<PHONE_" in one["context"] and "138" not in one["context"] and "qq.com" not in one["context"] for one in shown["PHONE_CN"])
    assert shown["IP_ADDRESS"][0]["context"].count("<IP_1>") == 1             # none leaves it in the text, not in the sample


def test_names_by_a_model_of_ones_own(tmp_path):
    import spacy

    nlp = spacy.blank("zh")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "张三丰"}, {"label": "GPE", "pattern": "武当山"}])
    nlp.to_disk(tmp_path / "model")
    texts = {"a": "张三丰住在武当山，电话13812345678。", "b": "Zhang Sanfeng lives here."}
    kept, _, sealed = run(tmp_path, texts, {"person": "mask", "address": "mask", "phone_cn": "mask", "models": {"zh": str(tmp_path / "model")}})
    assert kept["a"]["text"] == "<PERSON_1>住在<ADDRESS_1>，电话<PHONE_1>。"
    assert kept["b"]["text"] == texts["b"]
    assert not any("names, addresses" in limit for limit in sealed["limits"])
    with pytest.raises(AssetError, match="nothing is downloaded"):
        run(tmp_path, texts, {"person": "mask", "models": {"zh": "zh_core_web_none"}}, "missing")


@pytest.fixture(scope="module")
def corpus():
    return {f"p{k:04d}": text for k, (text, _) in enumerate(pii_planted.chinese(seed=23, n=200) + pii_planted.english(seed=23, n=100))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, corpus):
    """What must come of the corpus in several parts, as `run` gives it, and the raw files."""
    folder = tmp_path_factory.mktemp("whole")
    raw = {"path": str(folder / "raw"), "id": "url", "file_mb": 0.01}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PII_KEY", KEY)
        patch.setattr(ingest, "LEAST", 20_000)
        return run(folder, corpus, SECTION | {"default": "mask"}, raw=raw), raw


@pytest.mark.parametrize("engine", ["spark", "ray"])
def test_engines_agree(tmp_path, corpus, whole, engine, request, monkeypatch):
    request.getfixturevalue({"spark": "spark", "ray": "ray_session"}[engine])
    monkeypatch.setattr(ingest, "LEAST", 20_000)
    other = run(tmp_path, corpus, SECTION | {"default": "mask"}, engine, engine=engine, raw=whole[1] | {"path": str(tmp_path / "raw")})
    assert len(list((tmp_path / engine / "redact/kept").iterdir())) > 3
    one = whole[0]
    assert [rows_without_place(some) for some in one[:2]] == [rows_without_place(some) for some in other[:2]]
    assert one[2]["digest"] == other[2]["digest"]
    assert one[2]["entities"] == other[2]["entities"]


def rows_without_place(some):
    """Rows by id, without the file that they were read from, which is another run's."""
    return {id_: {name: value for name, value in row.items() if name != "source"} for id_, row in some.items()}


@pytest.mark.parametrize(("death", "done"), [("Redact.1", 0), ("Redact.3", 2), ("seal.1", None)])
def test_killed_and_run_again(tmp_path, whole, monkeypatch, death, done):
    monkeypatch.setattr(ingest, "LEAST", 20_000)
    (kept, dropped, sealed), raw = whole
    parsed = settings(tmp_path, SECTION | {"default": "mask"}, "out", raw=raw)
    ingest.run(parsed, "local")
    folder, parts = tmp_path / "out/redact", len(list((tmp_path / "out/ingest/kept").iterdir()))
    (tmp_path / "marks").mkdir()
    killed = Path(__file__).with_name("killed.py")
    process = subprocess.run([sys.executable, str(killed), str(tmp_path / "out.yaml"), "local", str(tmp_path / "marks"), death], capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-2000:]
    assert parts > 3
    assert len(list((folder / "_parts").glob("*.json"))) == (parts if done is None else done)
    with pytest.raises(OutputError, match="has not finished"):
        passport.read(str(folder))
    again = redact.run(parsed, "local")
    assert again["digest"] == sealed["digest"]
    assert again["resumed_parts"] == (parts if done is None else done)
    assert (rows(folder / "kept"), rows(folder / "dropped")) == (kept, dropped)


def test_a_large_document(tmp_path):
    text = "甲方电话13812345678，邮箱a@b-mail.com。" + "第一条 合同自签订之日起生效。\n" * 300_000
    kept, _, _ = run(tmp_path, {"a": text})
    assert kept["a"]["text"] == "甲方电话<PHONE_1>，邮箱<EMAIL_1>。" + text[text.index("第一条"):]
