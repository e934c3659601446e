"""Documents with planted duplicates of graded similarity, and the slow, obvious way to compare them."""

import random
import re
import unicodedata

SYLLABLES = ["ka", "mo", "ti", "ren", "sol", "va", "due", "pri", "not", "ash", "elm", "qui", "bor", "ley", "wan", "tor", "gri", "mis", "cu", "pa"]


def words(rng, n):
    return [("".join(rng.choices(SYLLABLES, k=rng.randint(1, 3)))) for _ in range(n)]


def chinese(rng, n):
    """n random characters of the 3,000 from U+4E00 on, with a full stop here and there."""
    return [chr(0x4E00 + rng.randrange(3000)) if rng.random() > 0.04 else "。" for _ in range(n)]


def edited(rng, units, make, share):
    """The units with a run of them replaced in several places, so that about `share` of the 5-shingles stay."""
    units = list(units)
    spans = max(1, len(units) // 300)
    gone = max(1, round(len(units) * share / spans))
    for _ in range(spans):
        at = rng.randrange(max(1, len(units) - gone))
        units[at : at + gone] = make(rng, gone)
    return units


def shingles(text):
    """The set of shingles of a text: 5 characters where a third of its letters or more are Han, else 5 words."""
    folded = unicodedata.normalize("NFKC", text).lower()
    han = sum("\u4e00" <= c <= "\u9fff" for c in folded)
    units = [c for c in folded if not c.isspace()] if han else re.findall(r"\w+", folded)
    if not units:
        units = [c for c in folded if not c.isspace()]
    return {tuple(units[k : k + 5]) for k in range(max(1, len(units) - 4))} if units else set()


def jaccard(a, b):
    a, b = shingles(a), shingles(b)
    return len(a & b) / len(a | b) if a | b else 0.0


def greedy(texts, threshold):
    """{id: (keeper, similarity)} of what must go: longest first, each against all that stay; by brute force."""
    kept, gone, sets = [], {}, {id_: shingles(text) for id_, text in texts.items()}
    for id_ in sorted(texts, key=lambda id_: (-len(texts[id_]), id_)):
        mine = sets[id_]
        for other in kept:
            union = mine | sets[other]
            if texts[id_] == texts[other] or union and len(mine & sets[other]) / len(union) >= threshold:
                gone[id_] = (other, len(mine & sets[other]) / len(union))
                break
        else:
            kept.append(id_)
    return gone


def corpus(seed, groups, lengths=(20, 60, 200, 800), copies=3, shares=(0.0, 0.02, 0.05, 0.1, 0.2, 0.4)):
    """{id: text}: groups of a document and its edited copies, half of them Chinese."""
    rng = random.Random(seed)
    texts = {}
    for g in range(groups):
        make, glue = (chinese, "") if g % 2 else (words, " ")
        base = make(rng, rng.choice(lengths))
        for c in range(rng.randint(1, copies)):
            share = rng.choice(shares)
            texts[f"{g:04d}-{c}"] = glue.join(edited(rng, base, make, share) if c and share else base)
    return texts
