#!/usr/bin/env python3
"""Make tests/data/sample: about a thousand documents of real text in every format that ingest reads.

    python tests/data/make_sample.py SHARED_DATA

Sources and licences stand in tests/data/README.md. What real crawls have and clean sets lack is added here, from the
same text: broken records, other encodings, mojibake, markup, advertisements, repeats. Same input, same bytes.
"""

import csv
import gzip
import html
import io
import json
import pathlib
import random
import sys

import zstandard

OUT = pathlib.Path(__file__).resolve().parent / "sample"
ADVERTISEMENTS = [
    "澳门新葡京赌场在线开户，百家乐、老虎机、六合彩，注册送彩金，首存送百分之百！加微信客服领取。",
    "点击查看更多精彩内容！！！！！！扫一扫关注公众号，点击阅读原文，版权所有，未经授权不得转载。",
    "办证刻章，代开发票，无抵押贷款，联系电话见首页。办证刻章，代开发票，无抵押贷款，联系电话见首页。",
    "Buy cheap viagra online!!! Casino bonus, free slots, best poker. Click here click here click here click here.",
]


def rows(shared, path):
    with gzip.open(shared / f"{path}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def piece(text, rng, low=300, high=2500):
    """A run of whole lines of about low to high characters."""
    lines, start = text.splitlines(keepends=True), 0
    if len(text) > high:
        start = rng.randrange(max(1, len(lines) - 5))
    out, limit = "", rng.randint(low, high)
    for line in lines[start:]:
        if len(out) > limit:
            break
        out += line
    return out


def lines_of(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def packed(path, data):
    (OUT / path).parent.mkdir(parents=True, exist_ok=True)
    (OUT / path).write_bytes(data)


def squeeze(data):
    """gzip without a time stamp."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as file:
        file.write(data)
    return out.getvalue()


def main(shared):
    rng = random.Random(20240601)
    laws = rng.sample(rows(shared, "raw_zh_law/prc_laws"), 180)
    taiwan = rng.sample(rows(shared, "raw_tw_law/roc_laws_zh_hant"), 90)
    web = rng.sample(rows(shared, "raw_en_web/c4_sample"), 260)
    docs = rng.sample(rows(shared, "parallel_hans_hant/react_docs_zh_hans"), 24)
    poems = rng.sample(rows(shared, "raw_zh_poetry/tang_song_poems"), 150)
    damaged = rng.sample(rows(shared, "mojibake/zh_damage_pairs_public_domain"), 60)

    chinese = [{"url": f"law/{n}", "content": piece(row["text"], rng), "title": row["title"], "date": row["date"]} for n, row in enumerate(laws)]
    chinese += [{"url": f"damaged/{n}", "content": row["damaged"], "title": None, "date": None} for n, row in enumerate(damaged)]
    for n in range(40):   # pages of an advertiser: a bad line or two, many times
        line = rng.choice(ADVERTISEMENTS)
        chinese.append({"url": f"spam/{n}", "content": "\n".join([line] * rng.randint(2, 30)), "title": "广告", "date": None})
    chinese += [{"url": f"stub/{n}", "content": text, "title": None, "date": None} for n, text in enumerate(["", "无", "404", "页面不存在", None])]
    chinese += [dict(row) for row in chinese[:6]]   # ids that stand twice
    rng.shuffle(chinese)
    body = lines_of(chinese)
    cut = body.index(b"\n", len(body) // 2) + 1
    broken = b'{"url": "broken/1", "content": "the line ends too ear\n' + b'["not", "an", "object"]\n' + b'{"url": "broken/2", "title": "no content"}\n'
    packed("zh_web.jsonl.gz", squeeze(body[:cut] + broken + body[cut:]))

    packed("tw_law.jsonl.zst", zstandard.ZstdCompressor(level=10).compress(
        lines_of({"url": f"tw/{n}", "content": piece(row["text"], rng), "title": row.get("title") or row["id"]} for n, row in enumerate(taiwan))))
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["url", "content"])
    writer.writerows([f"c4/{n}", row["text"][:4000]] for n, row in enumerate(web))
    packed("en_web.csv", table.getvalue().encode())
    packed("poems.tsv", ("url\tcontent\n" + "".join(
        f"poem/{n}\t{' '.join(row['text'].split())}\n" for n, row in enumerate(poems))).encode("utf-16"))
    for n, row in enumerate(docs):
        if n < 12:
            packed(f"docs/page-{n:02d}.md", piece(row["text"], rng, 800, 4000).encode())
        else:
            text = "".join(f"<p>{html.escape(line)}</p>\n" for line in piece(row["text"], rng, 800, 4000).splitlines() if line.strip())
            page = (f"<!DOCTYPE html><html><head><meta charset=gb18030><title>文档 {n}</title><script>var x = '<b>';</script></head><body>"
                    f"<nav><a href=/>首页</a> <a href=/docs>文档</a> <a href=/blog>博客</a></nav><main><article><h1>文档 {n}</h1>{text}</article></main>"
                    "<footer>版权所有 © 示例网站 京ICP备00000000号</footer></body></html>")
            packed(f"pages/page-{n:02d}.html", page.encode("gb18030"))
    for n, row in enumerate(laws[:8]):
        packed(f"gb/law-{n}.txt", piece(row["text"], rng).encode("gb18030", errors="ignore"))
    doubled(shared, web)


def doubled(shared, web):
    """Duplicates: versions of the same law, and web pages that another site has copied, with a line of its own."""
    laws = {row["id"]: row for row in rows(shared, "raw_zh_law/prc_laws")}
    pairs = [row for row in rows(shared, "neardup/prc_laws.pairs") if row["same_law"] and row["jaccard_char5"] >= 0.6]
    chosen = sorted({id_ for row in pairs for id_ in (row["a"], row["b"]) if id_ in laws and len(laws[id_]["text"]) < 9000})[:60]
    records = [{"url": f"version/{id_}", "content": laws[id_]["text"], "title": laws[id_]["title"], "date": laws[id_]["date"]} for id_ in chosen]
    for n, row in enumerate(web[:30]):
        text = row["text"].strip()
        if n % 3:
            text = text[: len(text) // 2].rsplit(" ", 1)[0] + " [advertisement] " + text[len(text) // 2 :]
        records.append({"url": f"mirror/{n}", "content": f"{text}\nShare this article with your friends and subscribe!", "title": None, "date": None})
    packed("doubled.jsonl.gz", squeeze(lines_of(records)))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
