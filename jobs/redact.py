"""Find personal data and mask it, hash it, put something else in its place, remove it, or drop the document.

    gristmill redact conf/zh_web.yaml

What is found, see udfs/pii*.py; what is written instead, udfs/redaction.py. No value that was found leaves this job but in the
text of the documents whose recipe says `none`: not in the ledger, the summaries, the report or the passport.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import engine, parts, passport, recipe, stage, storage, summary
from gristmill.jobs.sections_redact import Entity
from gristmill.udfs import redaction, registry
from gristmill.udfs.dialogue_strings import MARKS, Joined
from gristmill.udfs.dialogues import Dialogues, kind_of
from gristmill.udfs.errors import GristmillError, InputError, RecipeError
from gristmill.udfs.pii_values import value
from gristmill.udfs.texts import Texts

COUNTS = pa.list_(pa.struct([("entity", pa.string()), ("count", pa.int64())]))
UNITS = {"pii_count": "count"}
SCORES = {"pii": pa.int64()}         # what `clean` may have made, of values that are no longer there
ROUNDS = 6                # in practice two or three: what stands around a value that is gone may be one itself
CONTEXT = 40              # code points of a sample before and after the hit
PACKAGES = ("presidio-analyzer", "phonenumbers", "python-stdnum", "tldextract", "Faker", "spacy")


@dataclass(frozen=True)
class Redact:
    """The task: one part of the parent in, one file of kept and one of dropped documents out."""

    folder: str
    entities: dict[str, Entity]
    models: dict[str, str]
    key: bytes | None
    samples: int
    dropped_text: str

    def __call__(self, part: parts.Part) -> None:
        with storage.parquet(part.url) as file:
            schema = self.schema(file.schema_arrow)
        found, seconds, start = summary.empty(), 0.0, time.perf_counter()
        values, documents, shown = Counter[str](), Counter[str](), dict[str, list[dict[str, Any]]]()
        kept, dropped = (storage.join(self.folder, side, f"{part.name}.parquet") for side in ("kept", "dropped"))
        with parts.Writer(kept, schema) as keep, parts.Writer(dropped, schema) as drop:
            for batch in parts.batches(part.url):
                began = time.perf_counter()
                joined = Joined(Dialogues(batch)) if kind_of(batch.schema) != "pretrain" else None
                if joined:
                    batch = batch.set_column(batch.schema.get_field_index("text"), "text", joined.text)
                spans, failed = self.attempt(Texts(batch["text"]))
                result, stays, counts = self.decided(batch, spans, failed)
                if joined:
                    result = parted(joined, result)
                seconds += time.perf_counter() - began
                for row, each in enumerate(counts):
                    values.update(each)
                    documents.update(each.keys())
                    self.show(shown, batch, row, spans[row])
                counted = summary.of_result(result, stays, UNITS, np.full(len(batch), "all", object))
                summary.add(found, counted)
                keep.write(result.filter(pa.array(stays)).select(schema.names))
                gone = result.filter(pa.array(~stays))
                drop.write(stage.hidden(gone, self.dropped_text).select(schema.names))
        found["seconds"] = {"redact": seconds, "read, count and write": time.perf_counter() - start - seconds}
        passport.finish(self.folder, part.name, found | {"values": dict(values), "documents": dict(documents), "samples": shown})

    def schema(self, source: pa.Schema) -> pa.Schema:
        """The parent's columns, `pii` and `pii_count`, and why, in place of scores of these names. Raises InputError for other columns."""
        ours = {"pii": COUNTS, "pii_count": pa.int64(), "why": stage.WHY}
        there = {name: source.field(name).type for name in ours if name in source.names}
        clash = next((name for name, dtype in there.items() if dtype not in (ours[name], SCORES.get(name))), None)
        if clash:
            raise InputError(f"the data has a column '{clash}' already, which redact would overwrite; rename it in the raw files")
        return pa.schema([*(field for field in source if field.name not in ours), *ours.items()], source.metadata)

    def attempt(self, texts: Texts) -> tuple[list[list[Any]], dict[int, Exception]]:
        """The spans of each text; where the search raises, halves are tried until the texts that it raises on stand alone."""
        try:
            return self.search(texts), {}
        except (GristmillError, MemoryError, ImportError):
            raise
        except Exception as error:
            if len(texts) == 1:
                return [[]], {0: error}
        middle = len(texts) // 2
        first, failed = self.attempt(Texts(texts.array[:middle]))
        second, others = self.attempt(Texts(texts.array[middle:]))
        return [*first, *second], failed | {middle + at: error for at, error in others.items()}

    def search(self, texts: Texts) -> list[list[Any]]:
        """The spans of each text that are not allowed."""
        from gristmill.udfs import pii, pii_names  # Presidio takes seconds to import: only where it is used

        patterns = [name for name in self.entities if name in pii.ENTITIES]
        spans = pii.spans(texts, patterns, {name: one.threshold for name, one in self.entities.items()})
        if self.models:
            named = pii_names.spans(texts, self.models, [name for name in self.entities if name not in pii.ENTITIES])
            spans = [pii.resolved([*one, *other]) for one, other in zip(spans, named, strict=True)]
        allowed = {name: allowing(name, one.allow) for name, one in self.entities.items() if one.allow}
        for row in (row for row, some in enumerate(spans) if any(span.entity in allowed for span in some)):
            text = texts.array[row].as_py()
            spans[row] = [span for span in spans[row] if not (span.entity in allowed and allowed[span.entity](text[span.start : span.end]))]
        return spans

    def decided(
        self, batch: pa.Table, spans: Sequence[Sequence[Any]], failed: dict[int, Exception]
    ) -> tuple[pa.Table, np.ndarray, list[Counter[str]]]:
        """The batch with its values replaced, which rows stay, and how many values of each entity every row had.

        A row that goes is masked, whatever the actions; one that could not be searched goes without its text.
        """
        actions: dict[str, str] = {name: one.action for name, one in self.entities.items()}
        why: list[list[dict[str, Any]]] = [[] for _ in spans]
        counts = [Counter[str](span.entity for span in some) for some in spans]
        for row, each in enumerate(counts):
            fatal = sorted(name for name in each if actions[name] == "drop")
            why[row] = [{"rule": f"redact:{name}", "value": float(each[name]), "evidence": None} for name in fatal]
        for row, error in failed.items():
            why[row] = [{"rule": "error:redact", "value": None, "evidence": type(error).__name__}]
        stays = np.array([not reasons for reasons in why], bool)
        text = batch["text"].combine_chunks().cast(pa.large_string())
        for rows, how in ((stays, actions), (~stays, dict.fromkeys(actions, "mask"))):
            text = self.replaced(text, np.flatnonzero(rows), spans, how, counts)
        if failed:
            mask = pa.array(np.isin(np.arange(len(spans)), list(failed)))
            text = pc.replace_with_mask(text, mask, pa.nulls(len(failed), pa.large_string()))
        listed = [[{"entity": name, "count": each[name]} for name in sorted(each)] for each in counts]
        columns = {name: batch[name] for name in batch.column_names} | {"text": text.cast(pa.string())}
        columns |= {"pii": pa.array(listed, COUNTS), "pii_count": pa.array([each.total() for each in counts], pa.int64())}
        return pa.table(columns | {"why": pa.array(why, stage.WHY)}), stays, counts

    def replaced(
        self, text: pa.Array, rows: np.ndarray, spans: Sequence[Sequence[Any]], how: dict[str, str], counts: list[Counter[str]]
    ) -> pa.Array:
        """The texts with the spans of these rows treated; what only shows once its neighbour is gone is found in another round."""
        found = {row: spans[row] for row in rows.tolist() if spans[row]}
        for _ in range(ROUNDS):
            if not found:
                break
            before = text.take(pa.array(list(found))).to_pylist()
            made = redaction.redact(before, list(found.values()), how, self.key)
            mask = np.zeros(len(text), bool)
            mask[list(found)] = True
            text = pc.replace_with_mask(text, pa.array(mask), pa.array(made, pa.large_string()))
            changed = [row for row, one, other in zip(found, before, made, strict=True) if one != other]
            again = self.search(Texts(text.take(pa.array(changed, pa.int64())))) if changed else []
            treated = ([span for span in some if how[span.entity] not in ("none", "drop")] for some in again)
            found = {row: some for row, some in zip(changed, treated, strict=True) if some}
            for row, some in found.items():
                counts[row].update(span.entity for span in some)
        return text

    def show(self, shown: dict[str, list[dict[str, Any]]], batch: pa.Table, row: int, spans: Sequence[Any]) -> None:
        """Add to the samples of this part, up to `samples` an entity: what stands around a hit, with every value in it masked."""
        for span in spans:
            mine = shown.setdefault(span.entity, [])
            if len(mine) < self.samples:
                text = batch["text"][row].as_py()
                low, high = max(0, span.start - CONTEXT), span.end + CONTEXT
                inside = [other for other in spans if other.end > low and other.start < high]
                low, high = min(low, inside[0].start), max(high, inside[-1].end)
                near = [other._replace(start=other.start - low, end=other.end - low) for other in inside]
                (masked,) = redaction.redact([text[low:high]], [near], {other.entity: "mask" for other in near}, None)
                context = "\n".join(line for line in (masked or "").split("\n") if line not in MARKS)
                mine.append({"id": str(batch["id"][row].as_py()), "score": round(span.score, 3), "context": context})


def parted(joined: Joined, result: pa.Table) -> pa.Table:
    """What became of the joined rows, with their messages again."""
    rows = joined.parted(result["text"].combine_chunks().cast(pa.large_string()))
    return pa.table({name: rows[name] if name in rows.column_names else result[name] for name in result.column_names})


def run(settings: recipe.Recipe, engine_name: str = "spark", overwrite: bool = False) -> dict[str, Any]:
    """Redact the nearest earlier section's output; returns the passport. Raises a GristmillError and leaves the folder unsealed."""
    start, section = time.perf_counter(), settings.redact
    if section is None:
        raise RecipeError("the recipe has no section `redact`; add for instance `redact: {email: mask, phone_cn: mask, id_card_cn: mask}`")
    entities = section.entities()
    keyed = any(one.action in redaction.KEYED for one in entities.values())
    key = redaction.key({"key_file": section.key_file, "key_env": section.key_env}) if keyed else None       # before the folder is touched
    redaction.check({name: one.action for name, one in entities.items()}, key)
    source, folder = settings.parent("redact"), storage.join(settings.workdir, "redact")
    parent = passport.read(source)
    from gristmill.udfs import pii, pii_names

    models = pii_names.checked(section.models)
    strings = {} if settings.raw.kind == "pretrain" else {"strings": registry.Operator("redact", "score", Joined).version}
    identity = {
        "stage": "redact", "recipe": settings.name, "parents": {parent["stage"]: parent["digest"]}, "dropped_text": settings.dropped_text,
        "entities": {name: one.model_dump() for name, one in entities.items()}, "models": models,
        "key": redaction.fingerprint(key) if key else None, "packages": packages(),
        "code": {what.__name__: registry.Operator("redact", "score", what).version for what in (pii.spans, redaction.redact)} | strings,
    }
    done = passport.open_folder(folder, "redact", identity, overwrite)
    if done is not None:
        return done
    finished = passport.finished(folder)
    task = Redact(folder, entities, dict(section.models), key, section.samples, settings.dropped_text)
    missing = [part for part in parts.of_folder(source) if part.name not in finished]
    engine.run(engine_name, task, missing, "redact", lambda: len(passport.finished(folder)))
    values, documents, shown = Counter[str](), Counter[str](), dict[str, list[dict[str, Any]]]()
    for part in passport.parts(folder, sorted(passport.finished(folder))):
        values.update(part["values"])
        documents.update(part["documents"])
        for name, some in part["samples"].items():
            mine = shown.setdefault(name, [])
            mine += some[: section.samples - len(mine)]
    found = {name: {"action": one.action, "threshold": one.threshold, "values": values[name], "documents": documents[name]}
             for name, one in entities.items()}
    storage.write_json(storage.join(folder, "samples.json"), shown)
    details = {"parents": {parent["stage"]: parent["fingerprint"]}, "licence": settings.raw.licence, "recipe": settings.model_dump(),
               "units": UNITS, "engine": engine_name, "resumed_parts": len(finished), "entities": found,
               "limits": limits(source, found, settings.raw.kind)}
    return passport.seal(folder, "redact", identity, passport.resummarise(folder), expected_rows=parent["rows"]["kept"],
                         max_error_rate=settings.max_error_rate, details=details, seconds=time.perf_counter() - start)


def allowing(entity: str, allow: Sequence[str]) -> Callable[[str], bool]:
    """Whether a value is allowed: one of these in its normal form, or what a /regular expression/ matches whole."""
    known = {value(entity, one) for one in allow if not one[:1] == one[-1:] == "/"}
    patterns = [re.compile(one[1:-1], re.IGNORECASE) for one in allow if one[:1] == one[-1:] == "/"]
    return lambda found: value(entity, found) in known or any(pattern.fullmatch(found) for pattern in patterns)


def packages() -> dict[str, str]:
    """Versions of the packages that decide what is found and written."""
    there = {dist.metadata["Name"].lower() for dist in metadata.distributions()}
    return {name: metadata.version(name) for name in PACKAGES if name.lower() in there}


def limits(source: str, found: dict[str, dict[str, Any]], kind: str) -> list[str]:
    """What a reader of the passport must know was not done."""
    seen = "`text`" if kind == "pretrain" else ("what messages say, reasoning, the arguments of calls, names of speakers and further "
                                                "fields of messages")
    out = [f"only {seen} was looked at: ids and other columns may hold personal data"]
    if "PERSON" not in found:
        out.append("names, addresses and organisations were not looked for")
    stays = sorted(name for name, one in found.items() if one["action"] == "none" and one["values"])
    if stays:
        out.append(f"values of {', '.join(stays)} are in the text as they were (none)")
    return [*out, f"the values stand in {source} and the folders before it"]


if __name__ == "__main__":
    import sys

    from gristmill.jobs.cli import main

    main(["redact", *sys.argv[1:]])
