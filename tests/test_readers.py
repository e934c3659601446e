"""Readers: every kind of file, and every way in which one is broken, ends in rows and in Bad records that name the place."""

import bz2
import codecs
import gzip
import io
import itertools
import json
import lzma
import os
import pickle
import random
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.jobs import decoding, readers, streams, webpages
from gristmill.jobs.readers import Options, Split, find, read, split
from gristmill.udfs.errors import InputError, RecipeError
from shared import rows as shared_rows
from shared import shared

ZH = "第一条：任何组织和个人都应当遵守法律，维护社会秩序。"
PACK = {"gz": gzip.compress, "zst": lambda data: zstandard.ZstdCompressor().compress(data), "bz2": bz2.compress, "xz": lzma.compress}


def whole(path, target=1 << 40, skipped=None, **options):
    """(rows as dicts, all Bad) of every split of a path."""
    rows, failures = [], []
    for part in split(find(str(path)), target, options.get("document", "file")):
        for table, bad in read(pickle.loads(pickle.dumps(part)), Options(**options), skipped):
            assert table.column_names[:4] == ["text", "source", "position", "id"]
            assert [str(field.type) for field in table.schema][:4] == ["string", "string", "int64", "string"]
            table.validate(full=True)
            rows += table.to_pylist()
            failures += bad
    return rows, failures


def write(path, data):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def jsonl(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


# ---- finding


def test_find_walks_folders_globs_and_urls(tmp_path, monkeypatch):
    for name in ("a/x.jsonl", "a/b/y.JSONL.GZ", "a/.hidden.jsonl", "a/_SUCCESS", "a/_tmp/z.jsonl", "a/c.tsv", "a/d.parquet",
                 "a/e.warc.wet.gz", "a/f.md", "a/g.htm", "a/image.png", "a/odd[1].txt"):
        write(tmp_path / name, b"{}")
    monkeypatch.chdir(tmp_path)
    left_out = []
    found = find("a", left_out=left_out)
    assert [(file.url, file.format, file.compression) for file in found] == [
        ("a/b/y.JSONL.GZ", "jsonl", "gzip"), ("a/c.tsv", "tsv", ""), ("a/d.parquet", "parquet", ""), ("a/e.warc.wet.gz", "warc", "gzip"),
        ("a/f.md", "text", ""), ("a/g.htm", "html", ""), ("a/odd[1].txt", "text", ""), ("a/x.jsonl", "jsonl", ""),
    ]
    assert left_out == ["a/image.png"]
    assert [file.url for file in find(["a/*.jsonl", "./a/x.jsonl", "a/**/y*"])] == ["a/b/y.JSONL.GZ", "a/x.jsonl"]
    assert [file.url for file in find("a/odd[1].txt")] == ["a/odd[1].txt"]
    assert {file.format for file in find("a/*.md", "jsonl")} == {"jsonl"}


def test_find_follows_links_but_not_in_circles(tmp_path):
    write(tmp_path / "real/x.jsonl", b"{}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/link").symlink_to("../real")
    (tmp_path / "data/loop").symlink_to(".")
    assert [os.path.relpath(file.url, tmp_path) for file in find(str(tmp_path / "data"))] == ["data/link/x.jsonl"]


def test_find_on_a_memory_filesystem():
    files = fsspec.filesystem("memory")
    files.pipe("/readers/a/x.jsonl", jsonl({"text": ZH}, {"text": "b"}))
    files.pipe("/readers/a/_x.jsonl", b"x")
    files.pipe("/readers/a/y.txt.zst", PACK["zst"](ZH.encode()))
    for path in ("memory://readers/a", "memory://readers/a/*", "memory://readers/**"):
        assert [file.url for file in find(path)] == ["memory:///readers/a/x.jsonl", "memory:///readers/a/y.txt.zst"], path
    rows, failures = whole("memory://readers/a", 20)
    assert [row["text"] for row in rows] == [ZH, "b", ZH]
    assert not failures
    with pytest.raises(InputError, match=r"memory://readers/b: nothing there; /readers has a"):
        find("memory://readers/b")


def test_find_looks_at_the_first_bytes_without_an_extension(tmp_path):
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["x"]}), table)
    kinds = {
        "part-0": (table.getvalue(), "parquet", ""), "part-1": (b' {"text": "x"}\n', "json", ""),
        "part-2": (PACK["gz"](b"[{}]"), "json", "gzip"), "part-3": (PACK["zst"](b"WARC/1.0\r\n"), "warc", "zstd"),
        "part-4": (b"\xef\xbb\xbf<!DOCTYPE html>", "html", ""), "x.0001": (PACK["xz"](b"{}"), "json", "xz"),
        "data.gz": (PACK["gz"](b"{}\n"), "json", "gzip"),
    }
    for name, (data, _, _) in kinds.items():
        write(tmp_path / name, data)
    assert {os.path.basename(file.url): (file.format, file.compression) for file in find(str(tmp_path))} == {
        name: kind[1:] for name, kind in kinds.items()}
    write(tmp_path / "other/noise", b"\x00\x01")
    write(tmp_path / "other/a.bin", b"{}")
    with pytest.raises(InputError, match=r"2 files, none of a known format \(\.bin, noise\)"):
        find(str(tmp_path / "other"))
    assert find(str(tmp_path / "other/a.bin"))[0].format == "json"


def test_find_says_what_there_is_instead(tmp_path):
    write(tmp_path / "corpus/web.jsonl", b"{}")
    with pytest.raises(InputError, match=r"corpsu/\*\.jsonl: nothing there.*has corpus; did you mean corpus\?"):
        find(f"{tmp_path}/corpsu/*.jsonl")
    with pytest.raises(InputError, match=r"\*\.parquet: nothing there.*has web\.jsonl"):
        find(f"{tmp_path}/corpus/*.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: nothing there.*has nothing"):
        find(str(tmp_path / "empty"))
    with pytest.raises(RecipeError, match="did you mean jsonl"):
        find(str(tmp_path), "jsnl")
    with pytest.raises(InputError, match="nosuch"):
        find("nosuch://bucket/x")


# ---- lines and splits


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab中\r", max_size=12), max_size=30), st.integers(1, 60), st.booleans())
def test_ranges_own_the_lines_that_start_in_them(tmp_path_factory, lines, target, ended):
    data = ("\n".join(lines) + ("\n" if ended else "")).encode()
    path = write(tmp_path_factory.mktemp("ranges") / "x.txt", data)
    parts = split(find(str(path)), target, "line")
    found = [(at, text) for part in parts for at, text in _lines_of(part)]
    assert found == _lines_of(Split(str(path), "text", "", 0, -1, len(data)))
    assert sum(part.size for part in parts) == len(data)
    at, expected = 0, []
    for line in data.split(b"\n"):
        if line and not line.isspace():
            expected.append((at, line.decode().removesuffix("\r")))
        at += len(line) + 1
    assert found == expected


def _lines_of(part):
    return [(row["position"], row["text"]) for table, _ in read(part, Options(document="line")) for row in table.to_pylist()]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300).map(lambda data: data.replace(b"\0", b"\n")), st.lists(st.integers(0, 300), max_size=8), st.integers(3, 40))
def test_blocks_keep_every_byte(data, cuts, block):
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK", block)
        found = list(streams.blocks(iter(pieces), 1000))
    start = 3 if data.startswith(codecs.BOM_UTF8) and pieces[0].startswith(codecs.BOM_UTF8) else 0
    assert b"".join(each for _, each in found) == data[start:]
    assert all(each.endswith(b"\n") for _, each in found[:-1])
    assert all(data[at : at + len(each)] == each for at, each in found)


def test_a_line_over_the_limit_is_bad_and_the_next_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "PIECE", 1000)
    monkeypatch.setattr(streams, "BLOCK", 2000)
    data = b"a\n" + b"b" * 50_000 + b"\nc\n" + b"d" * 9000 + b"\ne"
    found = list(streams.blocks(streams.pieces(str(write(tmp_path / "x", data))), 10_000))
    assert [each.reason for _, each in found if isinstance(each, streams.Bad)] == ["line of more than 10,000 bytes"]
    assert [each.position for _, each in found if isinstance(each, streams.Bad)] == [2]
    assert b"".join(each for _, each in found if isinstance(each, bytes)) == b"a\nc\n" + b"d" * 9000 + b"\ne"
    assert any(each == b"d" * 9000 + b"\n" for _, each in found)      # alone


def test_splits_do_not_change_what_is_read(tmp_path):
    rows = [{"id": str(n), "text": f"{ZH}{n}" * (n % 7), "n": n} for n in range(300)]
    write(tmp_path / "a.jsonl", codecs.BOM_UTF8 + jsonl(*rows))
    write(tmp_path / "lines.json", jsonl(*rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet", row_group_size=40)
    one, _ = whole(tmp_path, id="id")
    many, failures = whole(tmp_path, 3000, id="id")
    assert one == many
    assert not failures
    assert len(one) == 900
    assert len(split(find(str(tmp_path / "lines.json")), 3000)) > 5
    assert len(split(find(str(tmp_path / "b.parquet")), 1000)) == 8
    assert {part.format for part in split(find(str(tmp_path / "lines.json")), 3000)} == {"jsonl"}


# ---- JSON


def test_json_values_keep_their_types(tmp_path):
    write(tmp_path / "x.jsonl", jsonl(
        {"text": "a", "n": 1, "f": 1, "b": True, "s": {"k": [1, 2], "m": {}}, "l": ["x"], "mixed": 1, "wide": 2**63, "none": None,
         "t": "2024-01-01"},
        {"text": "", "n": None, "f": 2.5, "b": False, "s": {"j": "y", "m": {}}, "l": [], "mixed": "a", "wide": 1, "extra": 3},
    ))
    (table, failures), = read(split(find(str(tmp_path)), 1 << 20)[0], Options())
    types = {field.name: str(field.type) for field in table.schema}
    assert not failures
    assert types | {"n": "int64", "f": "double", "b": "bool", "l": "list<item: string>", "mixed": "string", "wide": "string",
                    "none": "null", "t": "string", "extra": "int64"} == types
    assert types["s"] == "string"      # an empty object has no Arrow type that Parquet holds
    assert table["text"].to_pylist() == ["a", ""]
    assert table["mixed"].to_pylist() == ["1", "a"]
    assert table["wide"].to_pylist() == [str(2**63), "1"]
    assert json.loads(table["s"][0].as_py()) == {"k": [1, 2], "m": {}}
    write(tmp_path / "x.jsonl", jsonl({"text": "a", "s": {"k": [1], "o": {"x": 1}}}, {"text": "b", "s": {"o": {"y": 0.5}}}, {"text": "c"}))
    (table, _), = read(split(find(str(tmp_path)), 1 << 20)[0], Options())
    assert str(table["s"].type) == "struct<k: list<item: int64>, o: struct<x: int64, y: double>>"
    assert table["s"].to_pylist()[2] is None


def test_columns_called_like_ours_are_kept_under_raw(tmp_path):
    write(tmp_path / "x.jsonl", jsonl({"content": "a", "text": "t", "source": "s", "position": 5, "id": 7, "raw_id": 8, "why": "w"}))
    rows, _ = whole(tmp_path, text="content", id="id")
    ours = {"text": "a", "source": str(tmp_path / "x.jsonl"), "position": 0, "id": "7"}
    assert rows == [ours | {"raw_text": "t", "raw_source": "s", "raw_position": 5, "raw_raw_id": 8, "raw_why": "w"}]
    rows, _ = whole(tmp_path, text="content")
    assert (rows[0]["id"], rows[0]["raw_id"]) == (None, 7)
    rows, _ = whole(tmp_path, text="content", id="source")
    assert (rows[0]["id"], rows[0]["raw_source"]) == ("s", "s")


BROKEN_LINES = [
    (b'{"text": "a"', "broken JSON"), (b"[1]", "no object but list"), (b'"x"', "no object but str"), (b'{"n": 1}', "no field 'text'"),
    (b'{"text": 5}', "no string but int"), (b'{"text": ["a"]}', "no string but list"), (b'{"text": "\\ud800x"}', "lone surrogate"),
    (b'{"text": "ok", "title": "\\udfff"}', "lone surrogate"),
    (b'{"text": "\xe4\xb8\xad\xe6\x96\x87\xff"}', "broken utf-8: byte 0xff at 16"),
    (b'{"text": ' + b"[" * 100_000, "recursion"), (b"not json", "broken JSON"),
    (b'{"text": "abcdefghijklmnopqrstu"}', "more than 20 bytes"),
    ('{"text": "一二三四五六七"}'.encode(), "more than 20 bytes"),
]


@pytest.mark.parametrize(("line", "reason"), BROKEN_LINES)
def test_a_broken_line_is_bad_and_its_neighbours_are_read(tmp_path, line, reason):
    first, last = jsonl({"text": "一"}), jsonl({"text": None}, {"text": ""})
    write(tmp_path / "x.jsonl", first + line + b"\n\n  \n" + last)
    rows, failures = whole(tmp_path, max_document_bytes=20)
    assert [row["text"] for row in rows] == ["一", None, ""]
    assert [row["position"] for row in rows][:2] == [0, len(first) + len(line) + 5]
    assert [bad.position for bad in failures] == [len(first)]
    assert reason in failures[0].reason
    assert len(failures[0].sample) <= 200


def test_what_orjson_refuses_and_json_reads(tmp_path):
    write(tmp_path / "x.jsonl", b'{"text": "a", "x": NaN}\n{"text": "tab\there", "x": 1.5}\n'
                                b'{"text": "b\\u0000", "x": 123456789012345678901234567890}\n')
    rows, failures = whole(tmp_path)
    assert [row["text"] for row in rows] == ["a", "tab\there", "b\0"]
    assert rows[2]["x"] == "123456789012345678901234567890"
    assert not failures


def test_no_record_has_the_text(tmp_path):
    write(tmp_path / "x.jsonl", jsonl({"txet": "a", "url": "b"}, {"url": "c"}))
    with pytest.raises(InputError, match=r"x\.jsonl: no record has 'text'; its columns are txet, url; did you mean 'txet'\?"):
        whole(tmp_path)
    with pytest.raises(InputError, match="no record has 'key'"):
        whole(tmp_path, text="txet", id="key")
    write(tmp_path / "x.jsonl", b"")
    assert whole(tmp_path) == ([], [])
    write(tmp_path / "x.jsonl", b"broken\n")
    assert len(whole(tmp_path)[1]) == 1


def test_json_lines_in_other_encodings(tmp_path):
    texts = ["plain", ZH, "中\\华", ZH * 3]
    write(tmp_path / "gbk.jsonl", jsonl(*({"text": text} for text in texts)).decode().encode("gb18030"))
    write(tmp_path / "utf16.jsonl", jsonl({"text": ZH}, {"text": "b"}).decode().encode("utf-16"))
    write(tmp_path / "wide.jsonl", jsonl({"text": ZH}, {"text": "b"}).decode().encode("utf-16-be"))
    assert [row["text"] for row in whole(tmp_path / "gbk.jsonl", 50)[0]] == texts
    assert [row["text"] for row in whole(tmp_path / "utf16.jsonl", 20)[0]] == [ZH, "b"]
    assert [row["text"] for row in whole(tmp_path / "wide.jsonl", 20)[0]] == [ZH, "b"]
    assert [row["text"] for row in whole(tmp_path / "utf16.jsonl", encoding="utf-16")[0]] == [ZH, "b"]
    assert [row["text"] for row in whole(tmp_path / "gbk.jsonl", encoding="gbk")[0]] == texts
    with pytest.raises(RecipeError, match="nonsense"):
        Options(encoding="nonsense")


ARRAYS = [
    (b"[]", [], []), (b"", [], []), (b' [{"text":"a"}]', ["a"], []),
    (b'[\n {"text": "a,]}\\"["},\n {"text": "b", "k": [1, {"z": "]"}]}\n]\n', ["a,]}\"[", "b"], []),
    (b'[{"text":"a"}, 5, "x,y", null, {"text":"b"}]', ["a", "b"], ["object but int", "object but str", "object but NoneType"]),
    (b'[{"text":"a"},{"text":"b"},{"te', ["a", "b"], ["ends early"]),
    (b'[{"text":"a"},{"text" "b"},{"text":"c"}]', ["a", "c"], ["broken JSON"]), (b'{"text":"a"}\n{"text":"b"}', ["a", "b"], []),
    (b'{\n"text":"a"\n}\n{\n"text":\n"b"}\n', ["a", "b"], []), (b'\xef\xbb\xbf[{"text":"a"}]', ["a"], []),
    ('[{"text":"中文的字"},{"text":"第一条　任何组织"}]'.encode("gb18030"), ["中文的字", "第一条　任何组织"], []),
    ('[{"text":"中文"}]'.encode("utf-16"), ["中文"], []), (b"hello", [], ["no JSON"]),
]


@pytest.mark.parametrize(("data", "texts", "reasons"), ARRAYS)
@pytest.mark.parametrize("piece", [1 << 20, 7])
def test_json_arrays(tmp_path, monkeypatch, data, texts, reasons, piece):
    if piece == 7 and data.startswith((b"[{\"text\":\"\xd6", b"\xff\xfe")):
        piece = 64       # an encoding is told by the first piece
    monkeypatch.setattr(streams, "PIECE", piece)
    rows, failures = whole(write(tmp_path / "x.json", data))
    assert [row["text"] for row in rows] == texts
    assert len(failures) == len(reasons)
    assert all(reason in bad.reason for reason, bad in zip(reasons, sorted(failures, key=lambda bad: bad.position), strict=True))
    if not data.startswith(b"\xff") and data.isascii():
        assert all(data[row["position"] : row["position"] + 1] == b"{" for row in rows)


# ---- compressed


@pytest.mark.parametrize("ending", PACK)
def test_compressed_in_several_members(tmp_path, ending):
    half = [jsonl({"text": f"{ZH}{n}"}, {"text": "b"}) for n in (1, 2)]
    write(tmp_path / f"x.jsonl.{ending}", b"".join(map(PACK[ending], half)) + (b"\0" * 100 if ending == "gz" else b""))
    rows, failures = whole(tmp_path)
    assert [row["text"] for row in rows] == [f"{ZH}1", "b", f"{ZH}2", "b"]
    size, last = len(half[0]), len(jsonl({"text": "b"}))
    assert [row["position"] for row in rows] == [0, size - last, size, 2 * size - last]
    assert not failures


@pytest.mark.parametrize("ending", PACK)
def test_truncated_keeps_the_rows_before(tmp_path, ending):
    random.seed(5)
    data = jsonl(*({"text": random.randbytes(400).hex()} for _ in range(2200)))
    packed = PACK[ending](data)
    rows, failures = whole(write(tmp_path / f"x.jsonl.{ending}", packed[: len(packed) * 3 // 4]))
    assert [row["text"] for row in rows] == [json.loads(line)["text"] for line in data.splitlines()[: len(rows)]]
    assert len(rows) > 1000
    assert [bad.reason for bad in failures] == [{"gz": "gzip", "zst": "zstd", "bz2": "bz2", "xz": "xz"}[ending] + " data ends early"]
    assert failures[0].position == rows[-1]["position"] + len(data.splitlines()[0]) + 1
    _, failures = whole(write(tmp_path / f"y.txt.{ending}", packed[:1000]))
    assert "ends early" in failures[0].reason
    _, failures = whole(write(tmp_path / f"z.jsonl.{ending}", b"this is not packed at all, it only says so"))
    assert "broken" in failures[0].reason


def test_gzip_goes_on_at_the_next_member(tmp_path):
    random.seed(6)
    members = [jsonl(*({"text": f"{n}:{random.randbytes(2000).hex()}"} for _ in range(20))) for n in range(3)]
    packed = [gzip.compress(member) for member in members]
    broken = bytearray(packed[1])
    broken[len(broken) // 2 : len(broken) // 2 + 40] = b"\0" * 40
    rows, failures = whole(write(tmp_path / "x.jsonl.gz", packed[0] + bytes(broken) + packed[2]))
    assert [row["text"][0] for row in rows].count("0") == [row["text"][0] for row in rows].count("2") == 20
    assert any("broken gzip data" in bad.reason for bad in failures)
    checksum = bytearray(packed[0])
    checksum[-6] ^= 1
    rows, failures = whole(write(tmp_path / "x.jsonl.gz", bytes(checksum)))
    assert len(rows) == 20
    assert "incorrect data check" in failures[0].reason


# ---- CSV


def test_csv_quotes_newlines_and_ragged_rows(tmp_path):
    write(tmp_path / "x.csv", '\ufeff"text",n,"a b"\r\n"line\r\none, ""x""",01,\r\n\r\nshort,2\r\n"中,文",3,x,y\r\nlast,4,z')
    rows, failures = whole(tmp_path)
    assert [(row["text"], row["position"], row["n"], row["a b"]) for row in rows] == [
        ('line\r\none, "x"', 2, "01", ""), ("last", 7, "4", "z")]
    assert [(bad.position, bad.reason) for bad in failures] == [
        (5, "2 fields, and the header has 3"), (6, "4 fields, and the header has 3")]
    assert failures[1].sample == '"中,文",3,x,y\r\n'


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_tsv_and_other_delimiters(tmp_path, newline):
    write(tmp_path / "x.tsv", f"text\tn{newline}a,b\t1{newline}")
    write(tmp_path / "y.csv", f"text;n{newline}a,b;1{newline}")
    assert whole(tmp_path / "x.tsv")[0][0]["n"] == whole(tmp_path / "y.csv", delimiter=";")[0][0]["n"] == "1"


def test_csv_with_an_open_quote_or_cut_short(tmp_path):
    write(tmp_path / "x.csv", 'text,n\na,1\n"open,2\nb,3\nc,"4"\nd,5\n')
    rows, failures = whole(tmp_path)
    assert [row["text"] for row in rows] == ["a", "d"]
    assert [bad.position for bad in failures] == [3]
    assert failures[0].sample == '"open,2\n'
    write(tmp_path / "x.csv", 'text,n\na,1\nb,"open\nc,3\n')
    rows, failures = whole(tmp_path)
    assert [row["text"] for row in rows] == ["a"]
    assert "unexpected end of data" in failures[0].reason
    random.seed(8)
    data = "n,text\n" + "".join(f'{n},"{random.randbytes(99).hex()}\n{random.randbytes(99).hex()}"\n' for n in range(2000))
    packed = gzip.compress(data.encode())
    (tmp_path / "x.csv").unlink()
    rows, failures = whole(write(tmp_path / "y.csv.gz", packed[: len(packed) // 2]))
    assert 500 < len(rows) < 1500
    assert all(len(row["text"]) == 397 for row in rows)
    assert len(failures) == 1
    assert "ends early" in failures[0].reason


def test_csv_encodings_and_columns(tmp_path):
    text = f"编号,内容\n1,{ZH}\n2,{ZH * 2}\n"
    for name, codec in (("g", "gb18030"), ("u", "utf-16"), ("b", "utf-8-sig")):
        rows, failures = whole(write(tmp_path / f"{name}.csv", text.encode(codec)), text="内容", id="编号")
        assert [(row["id"], row["text"]) for row in rows] == [("1", ZH), ("2", ZH * 2)], codec
        assert not failures
    rows, failures = whole(write(tmp_path / "d.csv", f"text,n\n{ZH},1\n".encode() + f"{ZH}".encode() + b"\xff,2\nc,3\n"))
    assert [row["n"] for row in rows] == ["1", "3"]
    assert (failures[0].position, failures[0].reason) == (3, "bytes that are not of the file's encoding")
    rows, failures = whole(write(tmp_path / "c.csv", f"text,{ZH}".encode() + b"\xff\na,1\nb,2\n"))
    assert (rows, [bad.position for bad in failures]) == ([], [1])
    with pytest.raises(InputError, match="two columns"):
        whole(write(tmp_path / "e.csv", "text,n,n\na,1,2\n"))
    with pytest.raises(InputError, match="no record has 'text'; its columns are test, n; did you mean 'test'"):
        whole(write(tmp_path / "f.csv", "test,n\na,1\n"))
    assert whole(write(tmp_path / "h.csv", "")) == ([], [])
    rows, _ = whole(write(tmp_path / "i.csv", "text,n\na\0b,1\n"))
    assert rows[0]["text"] == "a\0b"


# ---- Parquet


def test_parquet_keeps_columns_and_types(tmp_path):
    table = pa.table({
        "text": pa.array(["a", None, "", ZH], pa.large_string()), "id": pa.array([1, 2, None, 4], pa.int32()),
        "when": pa.array([0, 1, 2, 3], pa.timestamp("us", "UTC")), "tags": pa.array([["x"], [], None, ["y"]], pa.list_(pa.string())),
        "d": pa.array(["p", "q", "p", None]).dictionary_encode(), "s": pa.array([{"k": 1}] * 4, pa.struct([("k", pa.int8())])),
        "source": ["w"] * 4,
    })
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=3)
    found = pa.concat_tables(table for table, _ in read(split(find(str(tmp_path)), 1 << 20)[0], Options(id="id")))
    assert found["text"].to_pylist() == ["a", None, "", ZH]
    assert found["id"].to_pylist() == ["1", "2", None, "4"]
    assert found["position"].to_pylist() == [0, 1, 2, 3]
    for name in ("when", "tags", "d", "s"):
        assert found[name].type == table[name].type
        assert found[name].to_pylist() == table[name].to_pylist()
    assert found["raw_source"].to_pylist() == ["w"] * 4
    for type_ in (pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())):
        pq.write_table(pa.table({"text": pa.array(["a", None, ZH]).cast(type_)}), tmp_path / "x.parquet")
        assert [row["text"] for row in whole(tmp_path)[0]] == ["a", None, ZH]


def test_parquet_with_bad_texts(tmp_path):
    values = [b"a", "中文字符编码检测第一条".encode("gb18030"), None, b"\xe4\xb8\xad\xe4\xb8\xad\xff", b"x" * 30]
    for type_ in (pa.binary(), pa.string()):
        offsets = pa.array(values, pa.binary())
        text = offsets if type_ == pa.binary() else pa.Array.from_buffers(pa.string(), len(values), offsets.buffers())
        pq.write_table(pa.table({"text": text}), tmp_path / "x.parquet")
        rows, failures = whole(tmp_path, max_document_bytes=40)
        assert [row["text"] for row in rows] == ["a", "中文字符编码检测第一条", None, "x" * 30]
        assert [(bad.position, bad.reason) for bad in failures] == [(3, "broken utf-8: byte 0xff at 6")]
    pq.write_table(pa.table({"text": ["a", "b" * 41, ""]}), tmp_path / "x.parquet")
    rows, failures = whole(tmp_path, max_document_bytes=40)
    assert [row["position"] for row in rows] == [0, 2]
    assert (failures[0].position, failures[0].sample) == (1, "b" * 41)
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="column 'text' is int64, not text"):
        whole(tmp_path)
    with pytest.raises(InputError, match="did you mean 'text'"):
        whole(tmp_path, text="texts")


def test_broken_parquet(tmp_path):
    random.seed(9)
    table = pa.table({"text": [random.randbytes(500).hex() for _ in range(400)]})
    path = tmp_path / "x.parquet"
    pq.write_table(table, path, row_group_size=100, use_dictionary=False)
    data = bytearray(path.read_bytes())
    rows, failures = whole(write(path, data[: len(data) // 2]), 1000)
    assert not rows
    assert [(bad.position, "broken Parquet file" in bad.reason) for bad in failures] == [(0, True)]
    rows, failures = whole(write(tmp_path / "empty.parquet", b""))
    assert len(failures) == 1
    column = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(1).column(0)
    at = column.data_page_offset
    data[at : at + 20] = b"\xff" * 20
    rows, failures = whole(write(path, data))
    assert {0, 99, 200, 399} <= {row["position"] for row in rows} <= {*range(100), *range(200, 400)}
    assert [bad.position for bad in failures] == [100]
    assert "100 rows of row group 1 are lost" in failures[0].reason


# ---- text


def test_text_files(tmp_path):
    write(tmp_path / "a.txt", ZH + "\n\n" + ZH)
    write(tmp_path / "b.md", codecs.BOM_UTF8 + b"# T\r\n")
    write(tmp_path / "c.txt", b"")
    write(tmp_path / "d.txt", f"{ZH}\n\n{ZH}\n".encode("gb18030"))
    write(tmp_path / "e.txt", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + random.Random(1).randbytes(3000))
    rows, failures = whole(tmp_path)
    assert [(row["text"], row["encoding"]) for row in rows] == [
        (ZH + "\n\n" + ZH, "utf-8"), ("# T\r\n", "utf-8"), (f"{ZH}\n\n{ZH}\n", "gb18030")]
    assert [bad.reason.partition(":")[0] for bad in failures] == ["no encoding fits"]
    rows, failures = whole(tmp_path / "d.txt", document="line")
    assert [(row["text"], row["position"], row["encoding"]) for row in rows] == [(ZH, 0, "gb18030"), (ZH, 2 * len(ZH) + 2, "gb18030")]
    rows, failures = whole(tmp_path / "a.txt", max_document_bytes=20)
    assert (len(rows), failures[0].reason) == (0, "document of more than 20 bytes")
    _, failures = whole(tmp_path / "d.txt", encoding="utf-8")
    assert failures[0].reason == "not utf-8: byte 0xb5 at 0"


@pytest.mark.parametrize("codec", ["gb18030", "cp950", "big5hkscs", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_encodings_are_found(codec):
    text = "中華民國憲法第一條　中華民國基於三民主義，為民有民治民享之民主共和國。" * 3
    assert decoding.decode(text.encode(codec))[0] == text


def test_encodings_of_other_languages():
    japanese = "日本語のテキストはこのように書かれています。"
    for text, codec in ((japanese, "cp932"), (japanese, "euc_jp"), ("대한민국은 민주공화국이다. 모든 권력은 국민으로부터 나온다.", "cp949"),
                        ("Ceci est déjà très élevé, n'est-ce pas ? “Oui” – ça", "cp1252"), ("A\0B and C", "utf-8"),
                        ("Все люди рождаются свободными и равными", "cp1251"), ("Plain text with one caf\u00e9", "latin-1")):
        assert decoding.decode(text.encode(codec))[0] == text, codec


def test_encodings_are_never_forced():
    good = (ZH * 20).encode()
    for position in (0, 100, 500, len(good) - 1):
        with pytest.raises(decoding.Undecodable, match="broken utf-8"):
            decoding.decode(good[:position] + b"\xff" + good[position:])
    with pytest.raises(decoding.Undecodable, match="broken utf-8"):
        decoding.decode(good[:-1])
    with pytest.raises(decoding.Undecodable):
        decoding.decode(codecs.BOM_UTF16_LE + b"a\0b")


def test_accuracy_of_encodings():
    """Pieces of about 200 bytes of real text come back as they were; what does not is refused, not turned into another text."""
    random.seed(1)
    right = wrong = total = 0
    for path, codecs_ in (("raw_zh_law/prc_laws.jsonl.gz", ("gb18030", "utf-16-le", "utf-16-be")),
                          ("raw_tw_law/roc_laws_zh_hant.jsonl.gz", ("cp950", "utf-16-le")),
                          ("raw_zh_poetry/tang_song_poems.jsonl.gz", ("cp950", "gb18030")),
                          ("raw_en_web/c4_sample.jsonl.gz", ("utf-16-le", "utf-16-be"))):
        for row in random.sample(shared_rows(path), 50):
            for codec in codecs_:
                piece = row["text"][50:150].encode(codec, "ignore").decode(codec)
                data = piece.encode(codec)
                if len(data) < 60 or (codec[:3] != "utf" and data.isascii()):
                    continue
                total += 1
                try:
                    found = decoding.decode(data)[0] == piece
                except decoding.Undecodable:
                    continue
                right, wrong = right + found, wrong + (not found)
    assert total > 350
    assert right / total >= 0.985
    assert wrong / total <= 0.005


# ---- web pages


PAGE = """<!DOCTYPE html><html><head><title> {title}
 </title><meta charset="{charset}"><script>var x = 1;</script></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/a">About us</a></li></ul></nav>
<article><h1>{title}</h1><p>甲{text}</p><p>乙{text}</p><ul><li>丙{text}</li></ul><table><tr><td>一</td><td>二</td></tr></table></article>
<footer>Copyright 2020 All rights reserved</footer></body></html>"""


def test_html_files(tmp_path):
    for codec in ("utf-8", "gb18030", "utf-16"):
        write(tmp_path / f"{codec}.html", PAGE.format(title="法律", text=ZH * 3, charset=codec).encode(codec))
    write(tmp_path / "short.html", "<p>短</p>")
    write(tmp_path / "empty.html", "<html><body></body></html>")
    write(tmp_path / "nul.html", "<html><body><p>a\0b</p><script>x</script></body></html>")
    write(tmp_path / "lies.html", PAGE.format(title="法律", text=ZH * 3, charset="iso-8859-1").encode("gb18030"))
    rows, failures = whole(tmp_path)
    found = {os.path.basename(row["source"]): row for row in rows}
    assert not failures
    for name in ("utf-8.html", "gb18030.html", "utf-16.html", "lies.html"):
        assert found[name]["title"] == "法律"
        assert found[name]["text"].count(ZH * 3) == 3
        assert "\n" in found[name]["text"]
        assert "一" in found[name]["text"]
        assert not any(word in found[name]["text"] for word in ("Home", "var x", "Copyright"))
    assert found["lies.html"]["encoding"] == found["gb18030.html"]["encoding"] == "gb18030"
    assert [found[name]["text"] for name in ("short.html", "empty.html", "nul.html")] == ["短", "", "ab"]
    assert whole(tmp_path / "short.html", extract=False)[0][0]["text"] == "<p>短</p>"


def record(kind, body, **headers):
    type_ = headers.pop("content_type", "application/http; msgtype=response")
    names = {"type": kind, "target-uri": "http://e.cn/", "date": "2024-01-02T03:04:05Z", **headers}
    lines = "".join(f"WARC-{name.title()}: {value}\r\n" for name, value in names.items())
    return f"WARC/1.0\r\n{lines}Content-Type: {type_}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body + b"\r\n\r\n"


def response(body, status=200, **headers):
    fields = {"content-type": "text/html; charset=utf-8", **{key.replace("_", "-"): value for key, value in headers.items()}}
    return f"HTTP/1.1 {status} X\r\n{''.join(f'{name}: {value}' + chr(13) + chr(10) for name, value in fields.items())}\r\n".encode() + body


def test_warc_records(tmp_path):
    page = PAGE.format(title="法律", text=ZH * 3, charset="utf-8")
    halves = page.encode()[:100], page.encode()[100:]
    chunked = b"".join(f"{len(half):x};x=1\r\n".encode() + half + b"\r\n" for half in halves) + b"0\r\n\r\n"
    records = [
        record("warcinfo", b"software: x", content_type="application/warc-fields"), record("request", b"GET / HTTP/1.1\r\n\r\n"),
        record("response", response(page.encode())), record("response", response(chunked, transfer_encoding="chunked")),
        record("response", response(gzip.compress(page.encode()), content_encoding="gzip")),
        record("response", response(zlib.compress(page.encode()), content_encoding="deflate")),
        record("response", response(page.encode(), content_encoding="br")),
        record("response", response(page.encode("gb18030"), content_type="text/html; charset=gb2312")),
        record("response", response(b"gone", status=404)), record("response", response(b"\x89PNG", content_type="image/png")),
        record("response", response(ZH.encode(), content_type="text/plain")), record("conversion", ZH.encode(), content_type="text/plain"),
        record("response", response(ZH.encode()[:-1], content_type="text/plain"), truncated="length"),
    ]
    for path, data in (("a.warc", b"".join(records)), ("b.warc.gz", b"".join(map(gzip.compress, records))),
                       ("c.warc.gz", gzip.compress(b"".join(records)))):
        skipped = Counter()
        rows, failures = whole(write(tmp_path / path, data), skipped=skipped)
        assert not failures
        assert [row["text"].count(ZH * 3) for row in rows] == [3] * 6 + [0] * 3, path
        assert [row["text"] for row in rows[6:]] == [ZH, ZH, ZH[:-1]]
        assert {row["url"] for row in rows} == {"http://e.cn/"}
        assert [row["content_type"] for row in rows] == ["text/html"] * 6 + ["text/plain"] * 3
        assert [row["encoding"] for row in rows][5] == "gb18030"
        assert [row["title"] for row in rows][5:7] == ["法律", None]
        assert skipped == {"warcinfo": 1, "request": 1, "response with status 404": 1, "response of type image/png": 1}
        assert [row["position"] for row in rows][:2] == [len(records[0] + records[1]), len(b"".join(records[:3]))]


def test_broken_warc_records(tmp_path):
    good = [record("response", response(f"{ZH}{n}".encode(), content_type="text/plain")) for n in range(4)]
    short = good[1].replace(b"Content-Length: ", b"Content-Length: -")
    rows, failures = whole(write(tmp_path / "x.warc", good[0] + short + good[2] + b"noise\r\nmore noise\r\n" + good[3]))
    assert [row["text"][-1] for row in rows] == ["0", "2", "3"]
    assert [bad.position for bad in failures] == [len(good[0]), len(good[0] + short + good[2])]
    assert "record of '-" in failures[0].reason
    assert failures[1].reason == "no record starts here"
    rows, failures = whole(write(tmp_path / "x.warc", b"".join(good)[:-60]))
    assert len(rows) == 3
    assert "ends early" in failures[0].reason
    random.seed(3)
    good = [record("response", response(f"{n}{random.randbytes(2000).hex()}".encode(), content_type="text/plain")) for n in range(4)]
    packed = list(map(gzip.compress, good))
    packed[1] = packed[1][:900] + b"\0" * 30 + packed[1][930:]
    (tmp_path / "x.warc").unlink()
    rows, failures = whole(write(tmp_path / "x.warc.gz", b"".join(packed)))
    assert [row["text"][0] for row in rows] == ["0", "2", "3"]
    assert any("broken gzip data" in bad.reason for bad in failures)
    rows, failures = whole(write(tmp_path / "x.warc.gz", b"".join(map(gzip.compress, good))[:-50]))
    assert [row["text"][0] for row in rows] == ["0", "1", "2"]
    assert "ends early" in failures[0].reason
    big = record("response", response(b"x" * 3_000_000, content_type="text/plain"))
    rows, failures = whole(write(tmp_path / "x.warc.gz", gzip.compress(good[0] + big + good[1])), max_document_bytes=1_000_000)
    assert len(rows) == 2
    assert "more than 1,000,000 bytes" in failures[0].reason
    cut = record("response", response(gzip.compress(good[2])[:-600], content_type="text/plain", content_encoding="gzip"))
    rows, failures = whole(write(tmp_path / "x.warc.gz", gzip.compress(good[0] + cut + good[1])))
    assert (len(rows), failures[0].reason) == (2, "gzip of the page ends early")
    bomb = record("response", response(gzip.compress(b"x" * 3_000_000), content_type="text/plain", content_encoding="gzip"))
    rows, failures = whole(write(tmp_path / "x.warc.gz", gzip.compress(good[0] + bomb)), max_document_bytes=1_000_000)
    assert (len(rows), len(failures)) == (1, 1)


@pytest.mark.parametrize(("name", "urls", "bad"), [
    ("warcio/example.warc", ["http://example.com/"], 0), ("warcio/example.warc.gz", ["http://example.com/"], 0),
    ("warcio/example.arc", ["http://example.com/"], 0), ("warcio/example.arc.gz", ["http://example.com/"], 0),
    ("warcio/example-bad-non-chunked.warc.gz", ["http://example.com/"], 0),
    ("warcio/example-iana.org-chunked.warc", ["http://www.iana.org/"], 0),
    ("warcio/example-wrong-chunks.warc.gz", ["http://example.com/"], 0), ("warcio/example-trunc.warc", ["http://example.com/"], 1),
    ("warcio/example-wget-bad-target-uri.warc.gz", ["http://example.com/"], 0), ("warcio/example-resource.warc.gz", [], 0),
    ("warcio/example-space-in-url.arc",
     ["http://example.com/index.cfm?FuseAction=Email&EmailTitle=Examples From The Live Web&IsPopUp=False"], 0),
    ("warcio/bad.arc", ["http://example.com/"], 3), ("warcio/post-test.warc.gz", [], 0), ("warcio/example-digest.warc", [], 0),
    ("whirlwind-python/whirlwind.warc.gz", ["https://an.wikipedia.org/wiki/Escopete"], 0),
    ("whirlwind-python/whirlwind.warc.wet.gz", ["https://an.wikipedia.org/wiki/Escopete"], 0),
])
def test_odd_archives(name, urls, bad):
    rows, failures = whole(shared(f"raw_warc/{name}"))
    assert [row["url"] for row in rows] == urls
    assert len(failures) == bad
    for row in rows:
        if "example.com" in row["url"] and name != "warcio/bad.arc":
            assert row["title"] == "Example Domain"
            assert "established to be used for illustrative examples" in row["text"]


def test_main_text_of_real_pages():
    """Of the help pages' own paragraphs most are kept; of the lines around them most are gone."""
    import lxml.html

    def bare(text):
        return "".join(text.split())

    for language, floor in (("zh_cn", 0.78), ("en_us", 0.75)):
        pages = shared_rows(f"raw_html_lohelp/libreoffice_help_{language}.jsonl.gz")[::60]
        kept = wanted = noise = around = 0
        for page in (row["html"] for row in pages):
            tree = lxml.html.document_fromstring(page.encode())
            main = tree.xpath('//div[@id="DisplayArea"]')
            if not main:
                continue
            text = bare(webpages.extract(page)[0])
            body = [bare(part.text_content()) for part in main[0].xpath('.//p[starts-with(@id, "par_")]')]
            main[0].drop_tree()
            for part in tree.xpath("//script | //style | //head"):
                part.drop_tree()
            outside = [bare(part) for part in tree.xpath("//body//text()") if len(bare(part)) > 3]
            kept, wanted = kept + sum(len(part) for part in body if part in text), wanted + sum(map(len, body))
            noise, around = noise + sum(part in text for part in outside), around + len(outside)
        assert wanted > 10_000
        assert kept / wanted >= floor
        assert noise / around <= 0.2


# ---- size


def test_a_large_document_and_many_small_ones(tmp_path):
    large = "大" * 4_000_000                     # 12 MB
    with gzip.open(tmp_path / "x.jsonl.gz", "wb", compresslevel=1) as out:
        out.write(jsonl(*({"text": f"small {n}"} for n in range(10_000))))
        out.write(jsonl({"text": large}) + json.dumps({"text": large}).encode() + b"\n" + jsonl({"text": "end"}))
    tables = [table for table, bad in read(split(find(str(tmp_path)), 1)[0], Options()) if not bad]
    assert sum(map(len, tables)) == 10_003
    assert [len(table) for table in tables if table["text"].nbytes > 2**23] == [1, 1]
    assert tables[-1]["text"].to_pylist() == ["end"]


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_memory_is_bounded_by_the_block(tmp_path, ending):
    line = jsonl({"text": ZH * 50, "url": "http://e.cn"})
    path = write(tmp_path / f"x.jsonl.{ending}", PACK[ending](line * (60_000_000 // len(line))))
    part = split(find(str(path)), 1)[0]
    tracemalloc.start()
    before, rows = pa.total_allocated_bytes(), 0
    for table, _ in read(part, Options()):
        rows += len(table)
        assert pa.total_allocated_bytes() - before < 40_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 60_000_000 // len(line)
    assert peak < 60_000_000


def test_names_that_others_use():
    assert {"Bad", "File", "Options", "Split", "find", "read", "split", "VERSION"} <= set(readers.__all__)
