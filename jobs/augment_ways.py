"""The ways of making rows of one seed: each is an `async (Maker, its settings, rows wanted) -> rows`, the refused ones among them."""

import asyncio
import functools
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from gristmill.jobs.augment_maker import Maker, Row, Tried
from gristmill.jobs.augment_seeds import LONGEST, chance, class_of
from gristmill.jobs.calls import refused
from gristmill.jobs.infer_distil import TRY
from gristmill.jobs.sections_augment import BackTranslate, Evolve, Instruct, Length, Paraphrase, Persona, Slots, Synonyms
from gristmill.udfs import synonyms, templates
from gristmill.udfs.lexicons import SHIPPED, Lexicon, lexicon

LENGTHS = ("short", "medium", "long")
OPERATIONS = ("constraints", "deepen", "concretise", "reasoning", "complicate")      # of the wording augment_evolve
DRAWS = 20               # of synonyms, until they are not those of another row of the seed
NAMES = {
    "zh": {"zh": "中文", "en": "英语", "ja": "日语", "ko": "韩语", "fr": "法语", "de": "德语", "es": "西班牙语", "ru": "俄语",
           "pt": "葡萄牙语", "it": "意大利语", "ar": "阿拉伯语", "vi": "越南语", "th": "泰语"},
    "en": {"zh": "Chinese", "en": "English", "ja": "Japanese", "ko": "Korean", "fr": "French", "de": "German", "es": "Spanish",
           "ru": "Russian", "pt": "Portuguese", "it": "Italian", "ar": "Arabic", "vi": "Vietnamese", "th": "Thai"},
}


async def instruct(maker: Maker, way: Instruct, count: int) -> list[Row]:
    """New instructions like this seed and others of its class."""
    task, seed = maker.task, maker.seed
    pool = [one for one in task.shown(maker.row) if one.id != seed.id]

    async def attempt(k: int, n: int) -> Tried:
        rng = chance(task.chosen, seed.id, "instruct", k, n)
        shown = [seed, *rng.sample(pool, min(way.seeds - 1, len(pool)))]
        rng.shuffle(shown)
        who, length = task.persona(way.personas, seed.text, rng), _turn(way.lengths, k)
        said = "\n\n".join(f"<{m}>\n{one.text[:LONGEST]}\n</{m}>" for m, one in enumerate(shown, 1))
        fields = {"seeds": said, "count": way.each, "label": class_of(maker.row, task.column) or None, "persona": who, **_wish(length)}
        return await maker.ask(way, "instruct", k + n * TRY, fields, maker.plain("instruct", _how(length, who), shown), many=True,
                               others={one.id: one.text for one in shown}, alone=True)

    return await _together(maker.rows(k, min(way.each, count - k * way.each), task.wanted.tries, partial(attempt, k))
                           for k in range(-(-count // way.each)))


async def evolve(maker: Maker, way: Evolve, count: int) -> list[Row]:
    """Chains of `rounds` questions, each made from the one before; where none comes of a round, the next one goes on from there."""
    task, seed = maker.task, maker.seed

    async def attempt(k: int, before: tuple[str, str], n: int) -> Tried:
        what = chance(task.chosen, seed.id, "evolve", k, n).choice(way.operations)
        fields = {"prompt": before[1], "context": seed.context, **{name: "" if name == what else None for name in OPERATIONS}}
        return await maker.ask(way, "broaden" if what == "broaden" else "evolve", k + n * TRY, fields, maker.plain("evolve", what),
                               others=dict([(seed.id, seed.text), before]), alone=what == "broaden",
                               least=0 if what == "broaden" else way.shorter * len(before[1]))

    async def chain(c: int) -> list[Row]:
        out, now = list[Row](), (seed.id, seed.text)
        for k in range(c * way.rounds, min((c + 1) * way.rounds, count)):
            rows = await maker.rows(k, 1, task.wanted.tries, partial(attempt, k, now))
            now = next(((row["id"], maker.question(row)) for row in rows if not row["why"]), now)
            out += rows
        return out

    return await _together(chain(c) for c in range(-(-count // way.rounds)))


async def paraphrase(maker: Maker, way: Paraphrase, count: int) -> list[Row]:
    """The question, or the document, in other words."""
    task, seed = maker.task, maker.seed
    document = task.kind == "pretrain"
    each = 1 if document else way.each

    async def attempt(k: int, n: int) -> Tried:
        fields = {"text": seed.text} if document else {"prompt": seed.text, "count": each, "context": seed.context}
        return await maker.ask(way, "document" if document else "paraphrase", k + n * TRY, fields, maker.plain("paraphrase"),
                               many=not document, others={seed.id: seed.text})

    return await _together(maker.rows(k, min(each, count - k * each), task.tries(way), partial(attempt, k),
                                      partial(maker.lost, quotes=not document), keep=way.answer == "keep")
                           for k in range(-(-count // each)))


async def back_translate(maker: Maker, way: BackTranslate, count: int) -> list[Row]:
    """The text through other languages and back; what it must not lose is compared at the end."""
    task, seed = maker.task, maker.seed
    own = way.language or (maker.script if maker.script != "und" else "en")
    through = [one for one in way.through if one != own] or ["zh" if own == "en" else "en"]
    names = NAMES[task.wordings["translate"].language(seed.text)]

    async def attempt(k: int, n: int) -> Tried:
        route = [through[(k + turn) % len(through)] for turn in range(way.rounds)]
        plain, text = maker.plain("back_translate", ", ".join(route)), seed.text
        for language in (one for foreign in route for one in (foreign, own)):
            fields = {"text": text, "language": names.get(language, language)}
            tried = await maker.ask(way, "translate", k + n * TRY, fields, plain, others={seed.id: seed.text})
            if tried.why:
                return tried
            text = tried.texts[0]
        return tried

    return await _together(maker.rows(k, 1, task.tries(way), partial(attempt, k), partial(maker.lost, quotes=False),
                                      keep=way.answer == "keep") for k in range(count))


async def persona(maker: Maker, way: Persona, count: int) -> list[Row]:
    """What the seed wants, as somebody else would ask for it."""
    task, seed = maker.task, maker.seed

    async def attempt(k: int, n: int) -> Tried:
        who = task.persona(way.personas, seed.text, chance(task.chosen, seed.id, "persona", k, n))
        length = _turn(way.lengths, k)
        fields = {"prompt": seed.text, "context": seed.context, "persona": who, **_wish(length)}
        return await maker.ask(way, "persona", k + n * TRY, fields, maker.plain("persona", _how(length, who)), others={seed.id: seed.text})

    return await _together(maker.rows(k, 1, task.tries(way), partial(attempt, k)) for k in range(count))


async def synonyms_(maker: Maker, way: Synonyms, count: int) -> list[Row]:
    """Words of the text replaced by synonyms; fewer rows where no more differ."""
    words, text, found = _lexicon(way.lexicon), maker.seed.text, dict[str, None]()
    for k in range(count):
        rng = chance(maker.task.chosen, maker.seed.id, "synonyms", k)
        drawn = (synonyms.replaced(text, rng, words, way.probability, way.at_most) for _ in range(DRAWS))
        found |= dict.fromkeys(itertools.islice((one for one in drawn if one != text and one not in found), 1))
    return await _drawn(maker, "synonyms", [(one, {}) for one in found])


async def slots(maker: Maker, way: Slots, count: int) -> list[Row]:
    """The seed with values in its slots; fewer rows where there are no more combinations."""
    seed, values = maker.seed, maker.task.values
    given = {name: values[name] for name in seed.slots(values)}
    every = templates.enumerated(seed.said, given, chance(maker.task.chosen, seed.id, "slots"))
    return await _drawn(maker, "slots", [(seed.text, chosen) for _, chosen in itertools.islice(every, count)])


def following(task: Any, wording: str, k: int, quotas: Mapping[str, int], answered: bool) -> tuple[int, int]:
    """(questions, answers) that come at most after the k-th call of a way with a wording, of a seed that is `answered` or not."""
    way = {"broaden": "evolve", "document": "paraphrase", "translate": "back_translate"}.get(wording, wording)
    settings, left = task.augment.ways.chosen.get(way), quotas.get(way, 0)
    questions, rows = 0, 1
    if isinstance(settings, Instruct | Paraphrase):
        rows = min(settings.each, left - k * settings.each)
    elif isinstance(settings, Evolve):
        rows = min((k // settings.rounds + 1) * settings.rounds, left) - k
        questions = rows - 1
    elif isinstance(settings, BackTranslate):
        questions = 2 * settings.rounds - 1
    elif settings is None:                        # an answer
        return 0, 0
    kept = answered and isinstance(settings, Paraphrase | BackTranslate) and settings.answer == "keep"
    return questions, 0 if kept or task.kind != "conversations" else rows


@functools.cache
def _lexicon(name: str | None) -> Lexicon:
    return lexicon(*([name] if name else SHIPPED))


async def _drawn(maker: Maker, name: str, found: list[tuple[str, dict[str, str]]]) -> list[Row]:
    """Rows of (text, values of its slots), for which nobody was asked."""
    plain = {**maker.plain(name), "teacher": None}

    async def attempt(k: int, n: int) -> Tried:
        return Tried(plain, [found[k][0]], values=found[k][1])

    if not found:
        return [{**plain, "id": f"{maker.seed.id}-{name}-0.0", "why": [refused("augment:unchanged")]}]
    return await _together(maker.rows(k, 1, 1, partial(attempt, k), keep=True) for k in range(len(found)))


def _turn(lengths: list[Length], k: int) -> Length | None:
    return lengths[k % len(lengths)] if lengths else None


def _wish(length: str | None) -> dict[str, str | None]:
    """The slots of a wording that say how long a text is to be: '' for the one that is wanted, else None."""
    return {name: "" if name == length else None for name in LENGTHS}


def _how(*wishes: str | None) -> str | None:
    return ", ".join(wish for wish in wishes if wish) or None


async def _together(works: Iterable[Awaitable[list[Row]]]) -> list[Row]:
    return [row for rows in await asyncio.gather(*works) for row in rows]


WAYS: dict[str, Callable[[Maker, Any, int], Awaitable[list[Row]]]] = {
    "instruct": instruct, "evolve": evolve, "paraphrase": paraphrase, "back_translate": back_translate, "persona": persona,
    "synonyms": synonyms_, "slots": slots}
