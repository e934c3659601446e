"""What is measured of each row: a part in, one Parquet file with a row a row out. The rows' texts do not come along."""

import functools
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import embedding, insight_columns, parts, passport, stage, steps, storage, summary
from gristmill.jobs.insight_columns import LENGTHS, Custom
from gristmill.udfs import assets, conflicts, dialogue_digest, kernels, overlap, registry, topics
from gristmill.udfs.characters import BITS, SPACE
from gristmill.udfs.dialogues import COLUMNS, ROLES, Dialogues
from gristmill.udfs.errors import InputError
from gristmill.udfs.fold import fold
from gristmill.udfs.texts import Texts

LETTERS = 20               # of a text, below which its script says what language it is: a model guesses
SURE = 0.65                # probability of a language, below which the script says it as well
READ = 120                 # code points of a text that the language model reads
EAST = ("zh", "ja", "ko")  # which their scripts tell; the model is asked about the others
# Two such words near the beginning: English, as 997 of 1,000 sentences in other Latin languages have not (and 690 English ones have).
ENGLISH = r"\b(?:the|and|you|your|this|these|that|what|how|are|with|from|which|who|they|their|have|has|to)\b"
OTHER = "(other)"          # the topic of rows that are about none


@dataclass(frozen=True)
class Plan:
    """What is measured; pickles as plain data. `options` are those of the recipe's section."""

    kind: str
    steps: tuple[steps.Step, ...]
    custom: tuple[Custom, ...]
    folder: str
    options: Mapping[str, Any]
    assets: Mapping[str, str] = field(default_factory=dict)
    mark: str = ""            # the fingerprint: a worker that outlives a job must not use its topics for another

    @property
    def schema(self) -> pa.Schema:
        return insight_columns.schema(self.kind, self.steps, self.custom, self.options)

    def rows(self, batch: pa.Table) -> "Rows":
        return Rows(batch, self.kind)

    def columns(self, url: str) -> list[str]:
        """The columns of a part that are read."""
        with storage.parquet(url) as file:
            there = file.schema_arrow.names
        wanted = {"id", "text", *COLUMNS[self.kind], *(one.original for one in self.custom)}
        return [name for name in there if name in wanted]


class Rows:
    """A batch of any kind: its texts by slot, each counted once."""

    def __init__(self, batch: pa.Table, kind: str):
        self.table = batch
        self.dialogues = None if kind == "pretrain" else Dialogues(batch, kind)
        self.text = self.dialogues.texts if self.dialogues else Texts(batch["text"])

    def subject(self, step: steps.Step) -> Texts | Dialogues:
        if self.dialogues is None or step.operator.of == "texts":
            return self.slot(step.slot)
        return self.dialogues

    def slot(self, name: str) -> Texts:
        return self.text if self.dialogues is None or not name else self.dialogues.slot(name)

    def about(self) -> Texts:
        """What tells a row's topic: what its users say, or its text."""
        return self.slot("user")


@dataclass(frozen=True)
class Measure:
    """The task: one part of the parent in, one file of metrics out."""

    plan: Plan

    def __call__(self, part: parts.Part) -> None:
        assets.EXPECTED.update(self.plan.assets)
        plan, found, seconds, start = self.plan, summary.empty(), dict[str, float](), time.perf_counter()
        with parts.Writer(storage.join(plan.folder, "metrics", f"{part.name}.parquet"), plan.schema) as writer:
            for batch in parts.batches(part.url, plan.columns(part.url)):
                made, errors = self.measured(batch, seconds)
                writer.write(pa.table(made).select(plan.schema.names))
                sizes = pc.fill_null(pc.binary_length(batch["text"]), 0).to_numpy()
                found["rows"] += len(batch)
                found["bytes"] += int(sizes.sum())
                found["tokens"] += int(pc.sum(made["tokens" if "tokens" in made else "token_estimate"]).as_py() or 0)
                for rule, count in errors.items():
                    found["rules"][rule] = found["rules"].get(rule, 0) + count
                    found["errors"] += count
        found.update(kept=found["rows"], kept_bytes=found["bytes"], kept_tokens=found["tokens"])
        found["seconds"] = seconds | {"read, count and write": time.perf_counter() - start - sum(seconds.values())}
        passport.finish(plan.folder, part.name, found)

    def measured(self, batch: pa.Table, seconds: dict[str, float]) -> tuple[dict[str, pa.Array], dict[str, int]]:
        """The columns of a batch, and how many rows each operator failed on; these have nulls there."""
        rows, plan, errors = self.plan.rows(batch), self.plan, dict[str, int]()
        out: dict[str, Any] = {"id": batch["id"].cast(pa.string())}
        for one in plan.custom:
            out[one.name] = insight_columns.values(batch[one.original], one) if one.original in batch.column_names else pa.nulls(
                len(batch), one.dtype)
        for step in plan.steps:
            start = time.perf_counter()
            result, failed = stage._attempt(step.operator, rows.subject(step), step.parameters, lambda: rows.text.languages)
            out |= dict(zip(step.columns(), result.values(), strict=True))
            if failed:
                errors[f"error:{step.column}"] = len(failed)
            _add(seconds, step.column, start)
        for name, make in (("language", self.languages), ("encoding", self.encoding), ("hashes", self.hashes), ("topic", self.topic),
                           ("benchmarks", self.benchmarks), ("lengths", self.lengths)):
            start = time.perf_counter()
            out |= make(rows)
            _add(seconds, name, start)
        if rows.dialogues is not None:
            vars(rows.dialogues).clear()     # scores leave things there that refer back to it: such a ring holds its memory for long
        return out | {"personal": _entities(out.pop("pii_spans"))}, errors

    def languages(self, rows: Rows) -> dict[str, Any]:
        """The language of question and answer: by script; longer texts in a script of many by words of English or the model."""
        made = {}
        for column, slot in insight_columns.languages(self.plan.kind).items():
            texts = rows.slot(slot)
            labels = texts.languages.copy()
            open_ = np.flatnonzero(~np.isin(labels.astype(str), EAST) & (texts.lengths >= LETTERS))
            heads = pc.utf8_slice_codeunits(texts.array.take(pa.array(open_)), 0, READ)
            english = pc.match_substring_regex(heads, f"(?s){ENGLISH}.*?{ENGLISH}", ignore_case=True).fill_null(False)
            plain = english.to_numpy(zero_copy_only=False)
            labels[open_[plain]], open_ = "en", open_[~plain]
            found = registry.operators()["language"](texts.take(open_), max_chars=READ)
            sure = found["language"].fill_null(0).to_numpy() >= SURE
            labels[open_[sure]] = found["language_label"].filter(pa.array(sure)).to_pylist()
            made[column] = pa.array(labels, pa.string())
        return made

    def encoding(self, rows: Rows) -> dict[str, Any]:
        """Whether fix_mojibake would turn characters of a row into others; entities and escapes, which code has too, do not count."""
        texts, changed = rows.text, np.zeros(len(rows.text), bool)
        fixed, _ = stage._attempt(registry.operators()["fix_mojibake"], texts, {}, None)
        if fixed is not texts.array:
            for row in np.flatnonzero(pc.not_equal(fixed, texts.array).fill_null(False).to_numpy(zero_copy_only=False)).tolist():
                after = set(fixed[row].as_py())
                changed[row] = any(char > "\x7f" and char not in after for char in texts.array[row].as_py())
        return {"mojibake": pa.array(changed)}

    def hashes(self, rows: Rows) -> dict[str, Any]:
        """What equal rows, equal prompts and contradictions are found by."""
        if rows.dialogues is None:
            return {"row_hash": hashes(rows.text)}
        questions, answers = conflicts.verdicts(rows.dialogues)
        return {"row_hash": hashes(Texts(dialogue_digest.everything(rows.dialogues))), "prompt_hash": prompts(rows.dialogues),
                "answered": pa.array(np.bincount(rows.dialogues.rows[rows.dialogues.chosen("response")], minlength=len(rows.text)) > 0),
                "conflict_question": pa.array(questions[:, 0].view(np.int64)),
                "conflict_answer": pa.array(answers.view(np.int64), mask=answers == 0)}

    def topic(self, rows: Rows) -> dict[str, Any]:
        if not self.plan.options.get("topics"):
            return {}
        made = topics_of(storage.join(self.plan.folder, "_topics.npz"), self.plan.mark)
        texts = rows.about()
        if self.plan.options.get("model"):
            places = made.topic[nearest(embedding.embed(texts.array.to_pylist(), self.plan.options["model"]), made.centroids)]
        else:
            places = topics.assign(texts, made)
        names = np.array([*made.names, OTHER], object)[places]
        return {"topic": pa.array(np.where(texts.lengths == 0, None, names), pa.string())}

    def benchmarks(self, rows: Rows) -> dict[str, Any]:
        """The share of a benchmark item's n-grams that a row holds, and which item's; 0 and null without any."""
        if not self.plan.options.get("benchmarks"):
            return {}
        index = _index(storage.join(self.plan.folder, "_index.npz"), self.plan.mark)
        shares, items = np.zeros(len(rows.text)), np.full(len(rows.text), None, object)
        for row, (_, found) in overlap.search(rows.text, index, 1).items():
            shares[row], items[row] = found[0].share, index.names[found[0].item]
        return {"overlap": pa.array(shares), "overlap_item": pa.array(items, pa.string())}

    def lengths(self, rows: Rows) -> dict[str, Any]:
        """Characters and tokens of each message by role and turn; with a tokenizer its tokens, of slots and rows as well."""
        if rows.dialogues is None:
            return {"tokens": pa.array(_tokens(rows.text, self.plan.options["tokenizer"]))} if self.plan.options.get("tokenizer") else {}
        said, texts = rows.dialogues, Texts(rows.dialogues.contents)
        tokens = _tokens(texts, self.plan.options.get("tokenizer"))
        order = np.argsort(said.rows, kind="stable")
        asked = np.cumsum((said.roles[order] == ROLES.index("user")).astype(np.int64))
        first = np.searchsorted(said.rows[order], np.arange(len(said)))
        turn = asked - np.concatenate([[0], asked])[first][said.rows[order]]
        roles = np.array([*ROLES, "other"], object)[said.roles[order]]
        values = pa.StructArray.from_arrays(
            [pa.array(roles, pa.string()), pa.array(turn, pa.int32()), pa.array(texts.lengths[order]), pa.array(tokens[order])],
            fields=list(LENGTHS.value_type))
        ends = np.append(first, len(order))
        made: dict[str, Any] = {"lengths": pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)}
        if self.plan.options.get("tokenizer"):
            for name in [name for name in self.plan.schema.names if name.rpartition(".")[2] == "tokens"]:
                slot = name.rpartition(".")[0]
                if slot == "reference":
                    made[name] = pa.array(_tokens(said.slot(slot), self.plan.options["tokenizer"]))
                    continue
                mask = said.chosen(slot or "all")
                made[name] = pa.array(np.bincount(said.rows[mask], tokens[mask], len(said)).astype(np.int64))
        return made


def prompts(rows: Dialogues) -> pa.Array:
    """int64[n]: a hash of each prompt, folded and without white space; null for an empty one."""
    codes, offsets = fold(rows.slot("prompt"))
    stays = kernels.look_up(codes, BITS) & SPACE == 0
    ends = np.concatenate([[0], np.cumsum(stays)])[offsets]
    found = kernels.hash_texts(codes[stays].view(np.uint8), 4 * ends)
    return pa.array(found.view(np.int64), mask=np.diff(ends) == 0)


def hashes(texts: Texts) -> pa.Array:
    return pa.array(kernels.hash_texts(*texts.utf8).view(np.int64), mask=texts.sizes == 0)


def _add(seconds: dict[str, float], name: str, start: float) -> None:
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


def _entities(spans: pa.Array) -> pa.Array:
    """list<string>[n]: the entities of each row's spans, each once."""
    ends = np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(spans), 0).to_numpy())]).tolist()
    names = pc.struct_field(pc.list_flatten(spans), "entity").to_pylist()
    return pa.array([sorted(set(names[a:b])) for a, b in itertools.pairwise(ends)], pa.list_(pa.string()))


def _tokens(texts: Texts, tokenizer: str | None) -> np.ndarray:
    """int64[n]: tokens of each text, the tokenizer's or an estimate."""
    if not tokenizer:
        return registry.operators()["token_estimate"](texts)["token_estimate"].fill_null(0).to_numpy()
    encoded = tokenizer_of(tokenizer).encode_batch_fast(texts.array.fill_null("").to_pylist(), add_special_tokens=False)
    return np.array([len(one.ids) for one in encoded], np.int64)


@functools.lru_cache(maxsize=2)
def tokenizer_of(folder: str) -> Any:
    """The tokenizer of a folder with a tokenizer.json. Raises InputError."""
    try:
        import tokenizers
    except ImportError:
        raise InputError("insight.tokenizer needs tokenizers: pip install 'gristmill[embed]', or leave it out for an estimate") from None
    try:
        return tokenizers.Tokenizer.from_file(storage.join(folder, "tokenizer.json"))
    except Exception as error:     # the library raises a bare Exception
        raise InputError(f"insight.tokenizer: {folder}: no tokenizer.json that can be read ({error})") from error


@functools.lru_cache(maxsize=2)
def topics_of(url: str, mark: str) -> topics.Topics:
    fs, path = storage.filesystem(url)
    return topics.load(fs.cat_file(path))


@functools.lru_cache(maxsize=2)
def _index(url: str, mark: str) -> overlap.Index:
    fs, path = storage.filesystem(url)
    return overlap.load(fs.cat_file(path))


def nearest(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """int64[n]: the nearest centroid, float32[d, k], of each vector."""
    return embedding.assign(vectors, np.ascontiguousarray(centroids.T), 1)[:, 0]
