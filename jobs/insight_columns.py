"""The columns of the metrics: those that are measured, as steps of a recipe, and the user's own, in types that every SQL engine reads."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import steps
from gristmill.udfs import registry
from gristmill.udfs.dialogues import COLUMNS, SLOTS
from gristmill.udfs.errors import RecipeError

# What is looked for as personal data. Left out of the recognisers' list: what is a machine's or a company's and no person's (addresses of
# networks, credit codes), places and dates of birth, which are mostly those of people in encyclopedias, and local numbers of eight digits.
ENTITIES = ("email", "phone_cn", "phone", "id_card_cn", "bank_card", "passport", "travel_permit", "plate_cn", "qq", "wechat", "iban",
            "ssn_us", "api_key", "url_credentials")
# Scores of documents, for which there are no dialogue scores: what the well-known filters of web corpora ask.
DOCUMENTS = ("word_count", "char_repetition", "special_ratio", "symbol_ratio", "mean_line_length", "stopword_ratio", "flagged_ratio")
LANGUAGES = {"pretrain": {"language": ""}, "prompts": {"question_language": "question"}}
BOTH = {"question_language": "question", "response_language": "response"}
# Columns that jobs make, besides scores and those of the kind.
MADE = ("source", "split", "dup_count", "dup_weight", "lines_removed", "contaminated", "label_conflict", "pii")
LENGTHS = pa.list_(pa.struct([("role", pa.string()), ("turn", pa.int32()), ("characters", pa.int64()), ("tokens", pa.int64())]))
# What is no score: it has a card of its own, or only serves to find rows.
PLAIN: dict[str, pa.DataType] = {"topic": pa.string(), "mojibake": pa.bool_(), "personal": pa.list_(pa.string()),
                                 "answered": pa.bool_(), "lengths": LENGTHS,
                                 "row_hash": pa.int64(), "prompt_hash": pa.int64(), "conflict_question": pa.int64(),
                                 "conflict_answer": pa.int64(), "overlap": pa.float64(), "overlap_item": pa.string()}


@dataclass(frozen=True)
class Custom:
    """A column of the user: what it is called in the data and in the metrics, and the type that it has there."""

    original: str
    name: str
    dtype: pa.DataType
    made: bool = False        # by a job, as far as its name and type tell: it is shown, and no fault of the user's is looked for in it

    @property
    def numeric(self) -> bool:
        return bool(pa.types.is_integer(self.dtype) or pa.types.is_floating(self.dtype))


def measured(kind: str, more: Iterable[Any]) -> tuple[steps.Step, ...]:
    """The steps of a profile: lengths by slot, every dialogue score that rows of the kind can have, and what the section adds.

    Raises RecipeError where one of these is no score.
    """
    slots = SLOTS[kind]
    names: list[Any] = [f"{slot}{name}" for slot in ("", *(f"{slot}." for slot in slots)) for name in ("char_count", "token_estimate")]
    if kind == "pretrain":
        names += [*DOCUMENTS, {"pii_count": {"entities": list(ENTITIES)}}]
    else:
        names += [name for name, one in registry.operators().items() if one.of == "dialogues" and kind in (one.kinds or (kind,))]
        names = [{"pii": {"entities": list(ENTITIES)}} if name == "pii" else name for name in names]
    names += ["replacement_ratio", {"pii_spans": {"entities": list(ENTITIES)}}]
    written = {name if isinstance(name, str) else next(iter(name)) for name in names}
    extra = [item for item in more if (item if isinstance(item, str) else next(iter(item), "")) not in written or isinstance(item, dict)]
    found, mistakes = steps.parse([*names, *extra], kind)
    mistakes = [mistake.replace("clean[", "insight.scores[") for mistake in mistakes]
    mistakes += [f"insight.scores: {step.name} is no score" for step in found if step.name == "keep" or step.operator.kind == "transform"]
    if mistakes:
        raise RecipeError("\n".join(mistakes))
    return tuple(found)


def scores(found: Iterable[steps.Step]) -> dict[str, tuple[pa.DataType, str]]:
    """{column: (type, unit)} of what steps make; a list is no column of the metrics."""
    return {name: (dtype, step.operator.unit) for step in found for name, dtype in step.columns().items() if not pa.types.is_nested(dtype)}


def languages(kind: str) -> dict[str, str]:
    """{column: slot} of the languages that are told apart."""
    return LANGUAGES.get(kind, BOTH)


def custom(schema: pa.Schema, kind: str, taken: Iterable[str]) -> list[Custom]:
    """The user's columns. One whose name is taken, whatever its case (SQL does not tell it apart), gets `raw_` in front.

    A score that `clean` made is measured anew and left out.
    """
    out, used = list[Custom](), {name.lower() for name in taken} | {"id"}
    made = {name: dtype for step in registry.operators().values() for name, dtype in step.columns({}).items() if step.each is None}
    own = {"id", "text", "why", *(name for name, dtype in COLUMNS[kind].items() if pa.types.is_nested(dtype)), "tools", "origin"}
    for field in schema:
        ours = field.name in (*MADE, *COLUMNS[kind]) or made.get(field.name.rpartition(".")[2]) == field.type
        if field.name in own or ours and field.name.lower() in used:
            continue
        name = field.name or "raw_"
        while name.lower() in used:
            name = f"raw_{name}"
        used.add(name.lower())
        out.append(Custom(field.name, name, _plain(field.type), ours))
    return out


def _plain(dtype: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(dtype):
        return _plain(dtype.value_type)
    if pa.types.is_boolean(dtype):
        return pa.bool_()
    if pa.types.is_integer(dtype) and not pa.types.is_uint64(dtype):
        return pa.int64()
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype):
        return pa.float64()
    return pa.string()


def values(column: pa.ChunkedArray, one: Custom) -> pa.Array:
    """The column in its plain type: a list or struct as JSON, a time in ISO 8601, bytes in hexadecimal; NaN is null."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_nested(array.type) or pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        return pa.array([None if value is None else _text(value) for value in array.to_pylist()], pa.string())
    array = array.cast(one.dtype, safe=False)
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, pa.float64()), array)
    return array


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False, default=str)


def schema(kind: str, found: Iterable[steps.Step], own: Iterable[Custom], options: Mapping[str, Any]) -> pa.Schema:
    """Of the metrics' files: id, the user's columns, then what is measured."""
    fields = {"id": pa.string(), **{one.name: one.dtype for one in own}}
    fields |= {name: dtype for name, (dtype, _) in scores(found).items()}
    fields |= {name: pa.string() for name in languages(kind)}
    if options.get("tokenizer"):
        fields |= {name: pa.int64() for name in ("tokens", *(f"{slot}.tokens" for slot in SLOTS[kind]))}
    absent = {name for name, there in (("topic", options.get("topics")), ("overlap", options.get("benchmarks")),
                                       ("overlap_item", options.get("benchmarks"))) if not there}
    if kind == "pretrain":
        absent |= {"answered", "lengths", "prompt_hash", "conflict_question", "conflict_answer"}
    return pa.schema([*fields.items(), *((name, dtype) for name, dtype in PLAIN.items() if name not in absent)])
