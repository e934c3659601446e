"""README.md: a release's folder as a data set of the Hugging Face Hub, which `datasets.load_dataset` reads as it is."""

import re

import yaml

from gristmill.jobs.datasheet import KINDS, About, chinese, code, languages, line, loading, table
from gristmill.jobs.page import share

# Licences as the Hub calls them (https://huggingface.co/docs/hub/repositories-licenses); another one is `other`, with its name.
LICENCES = re.compile(r"apache-2\.0|mit|isc|zlib|bsd(-[23]-clause)?|cc0-1\.0|cc-by(-nc)?(-sa|-nd)?-(2\.0|2\.5|3\.0|4\.0)|"
                      r"cdla-(sharing-1\.0|permissive-[12]\.0)|a?gpl-3\.0|gpl-2\.0|lgpl-(2\.1|3\.0)|mpl-2\.0|odc-by|odbl|openrail|pddl|unlicense|gfdl|bsl-1\.0")
TAGS = {"pretrain": ["pretraining"], "conversations": ["sft", "conversational"], "preference": ["preference", "dpo"],
        "unpaired": ["preference", "kto"], "ranked": ["preference", "rlhf"], "prompts": ["prompts"]}
SPOKEN = 0.005               # share of the rows from which on a language is named
COLUMNS = {
    "id": "of the row, the same in every version", "text": "the document", "messages": "role and content of each message, in order",
    "prompt": "the messages that are answered", "chosen": "the better answer", "rejected": "the worse answer", "completion": "the answer",
    "label": "whether the answer is good", "responses": "answers with their scores", "margin": "by how much the chosen one is better",
    "reference": "an answer to compare with", "tools": "JSON of the functions that may be called",
    "source": "the file that it was read from", "dup_weight": "how often the row should be seen in training",
}


def card(about: About) -> str:
    """The whole card: front matter for the Hub, a summary in English and Chinese."""
    rows = about["rows"]["kept"]
    came = sum(sealed["rows"]["rows"] for sealed in about["chain"] if sealed["stage"] == "ingest")
    steps = " → ".join(sealed["stage"] for sealed in about["chain"])
    kept = f" Of {came:,} rows that were read, {rows:,} ({share(rows, came)}) stayed." if came else ""
    columns = [(code(name), COLUMNS.get(name, "a column of the source" if name in about["own"] else "made on the way"))
               for name in about["columns"]]
    splits = [(name, f"{one['rows']:,}", f"{one['tokens']:,}") for name, one in about["splits"].items()]
    limits = "\n".join(f"- {line(limit)}" for limit in about["limits"]) or "None are recorded."
    sheet = "[DATASHEET.md](DATASHEET.md) has sources, every step with its counts, statistics, the audit, checksums and the whole recipe."
    parts = {
        "": f"{line(about['description'])}\n\nVersion {about['version']}: {rows:,} rows, {KINDS[about['kind']][0]}, about "
            f"{about['rows']['kept_tokens']:,} tokens.{kept} Made by Gristmill: {steps}. {sheet}",
        "Columns": table("column | what it is", columns, 2), "Splits": table("split | rows | tokens, about", splits),
        "How to load it": loading(about), "Known limits": limits, "中文摘要": chinese(about),
    }
    body = "".join(f"\n## {title}\n\n{text.strip()}\n" if title else f"\n{text.strip()}\n" for title, text in parts.items())
    return f"---\n{yaml.safe_dump(front(about), sort_keys=False, allow_unicode=True)}---\n\n# {line(about['title'])}\n{body}"


def front(about: About) -> dict[str, object]:
    """The card's metadata, as the Hub's specification has it."""
    rows, spoken = about["rows"]["kept"], languages(about)
    files = [{"split": name, "path": f"data/{name}-*.parquet"} for name in about["splits"]]
    codes = [name for name, n in spoken.items() if n >= SPOKEN * rows and re.fullmatch("[a-z]{2,3}", name) and name != "und"]
    return {
        "pretty_name": about["title"], "language": codes,
        **licence(about["licence"]), "size_categories": [size(rows)], "task_categories": ["text-generation"],
        "tags": [*TAGS[about["kind"]], "gristmill"], "configs": [{"config_name": "default", "data_files": files}],
    }


def licence(stated: str | list[str] | None) -> dict[str, object]:
    """The Hub's name for a licence, `other` with its name, `unknown` for none."""
    if stated is None:
        return {"license": "unknown"}
    several = [stated] if isinstance(stated, str) else stated
    known = [re.sub(r"[\s_]+", "-", one.strip().lower()) for one in several]
    if all(LICENCES.fullmatch(one) for one in known):
        return {"license": known if len(known) > 1 else known[0]}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.-]+", "-", "-and-".join(known)).strip("-.") or "see-datasheet",
            "license_link": "DATASHEET.md"}


def size(rows: int) -> str:
    """The Hub's class of a number of rows."""
    edges = [(10**3, "1K"), (10**4, "10K"), (10**5, "100K"), (10**6, "1M"), (10**7, "10M"), (10**8, "100M"), (10**9, "1B"), (10**10, "10B"),
             (10**11, "100B"), (10**12, "1T")]
    if rows < edges[0][0]:
        return "n<1K"
    if rows >= edges[-1][0]:
        return "n>1T"
    at = next(n for n, (edge, _) in enumerate(edges) if rows < edge)
    return f"{edges[at - 1][1]}<n<{edges[at][1]}"
