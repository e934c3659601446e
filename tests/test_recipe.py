"""The recipe: parsed strictly, every mistake at once, with the nearest valid choice."""

from pathlib import Path

import pytest

from gristmill.jobs import recipe
from gristmill.udfs.errors import RecipeError

GOOD = {"name": "x", "workdir": "out", "raw": {"path": "a.jsonl"}}
CONF = Path(__file__).resolve().parent.parent / "conf"


def mistakes(**changes):
    with pytest.raises(RecipeError) as caught:
        recipe.parse({**GOOD, **changes})
    return str(caught.value).splitlines()


def test_a_small_recipe():
    parsed = recipe.parse({**GOOD, "clean": ["char_count", {"keep": ["char_count >= 5"]}]})
    score, keep = recipe.steps(parsed)
    assert (score.name, score.column) == ("char_count", "char_count")
    assert [rule.text for rule in keep.rules] == ["char_count >= 5"]
    assert parsed.sections() == ["ingest", "clean"]
    assert recipe.parse(GOOD).sections() == ["ingest"]


def test_all_mistakes_at_once():
    found = mistakes(raw={"path": "a", "txt": "b"}, clean=["char_cuont", {"word_count": {"n": 2}}, {"keep": ["word_cont >= 1"]}], sed=3)
    assert found == [
        "recipe: raw.txt: unknown key. Did you mean 'text'?",
        "recipe: sed: unknown key. Did you mean 'seed'?",
        "recipe: clean[0]: no operator 'char_cuont'. Did you mean 'char_count'?",
        "recipe: clean[1].word_count.n: unknown key. It takes none.",
        "recipe: clean[2].keep: 'word_cont >= 1' needs a score that no earlier step made. Did you mean 'word_count'?",
    ]


@pytest.mark.parametrize(("clean", "message"), [
    ([{"keep": ["char_count >= 5"]}, "char_count"], "It stands below this keep; move it up."),
    (["char_count", {"keep": ["char_count >= five"]}], "char_count is a number, 'five' is not"),
    (["char_count", {"keep": ["char_count => 5"]}], "is not a rule; write SCORE <= NUMBER"),
    (["char_count", {"keep": ["char_count >= 5 or 1"]}], "char_count is a number, '5 or 1' is not"),
    (["char_count", {"keep": "char_count >= 5"}], "rules are a list"),
    (["char_count", {"keep": {"Chinese": ["char_count >= 5"]}}], "'Chinese' is not a language code"),
    (["char_count", "char_count"], "add `as: another_name`"),
    ([{"char_count": {"as": "two words"}}], "a column's name is letters"),
    ([{"char_count": 5}], "parameters are a map"),
    ([["char_count"]], "a step is an operator's name"),
    ([{"char_count": {}, "word_count": {}}], "a step is an operator's name"),
    ([{"char_repetition": {"n": "many"}}], "clean[0].char_repetition.n: "),
    ([{"char_repetition": {"n": {"chinese": 3}}}], "'chinese' is not a language code"),
    ([{"language": {"model": "no/such.ftz"}}], "no/such.ftz: no such file"),
])
def test_one_mistake(clean, message):
    found = mistakes(clean=clean)
    assert len(found) == 1
    assert message in found[0]


def test_missing_sections_are_named():
    with pytest.raises(RecipeError, match="workdir: is missing"):
        recipe.parse({"name": "x", "raw": {"path": "a"}})


def test_as_gives_another_column():
    parsed = recipe.parse({**GOOD, "clean": ["char_count", {"char_count": {"as": "after"}}, {"keep": ["after >= 2", "char_count >= 1"]}]})
    assert [list(step.columns()) for step in recipe.steps(parsed)] == [["char_count"], ["after"], []]


def write(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_settings_split_on_the_first_equals_sign(tmp_path):
    path = write(tmp_path, "name: x\nworkdir: out\nraw: {path: a}\nclean:\n  - char_repetition: {n: 10}\n  - keep: [char_repetition <= 0.2]\n")
    changed = recipe.load(path, ["raw.path=s3://b/dt=2024-06-01/*.jsonl", "clean.char_repetition.n=3", "clean.1.keep.0=char_repetition <= 0.1", "seed=7"])
    assert changed.raw.path == "s3://b/dt=2024-06-01/*.jsonl"
    assert recipe.steps(changed)[0].parameters == {"n": 3}
    assert recipe.steps(changed)[1].rules[0].value == 0.1
    assert changed.seed == 7
    with pytest.raises(RecipeError, match="no step 'char_count'"):
        recipe.load(path, ["clean.char_count.n=3"])
    with pytest.raises(RecipeError, match=r"write section\.key=value"):
        recipe.load(path, ["seed"])


@pytest.mark.parametrize(("text", "message"), [
    ("name: [", "not valid YAML"),
    ("- a\n- b\n", "a recipe is a map"),
    ("", "a recipe is a map"),
    ("name: x\nname: y\n", "the key 'name' stands twice"),
])
def test_files_that_are_no_recipe(tmp_path, text, message):
    with pytest.raises(RecipeError, match=message):
        recipe.load(write(tmp_path, text))


def test_no_such_recipe(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe"):
        recipe.load(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.name)
def test_the_shipped_recipes_load(path):
    assert recipe.load(str(path)).sections()[1:]


def test_names_of_the_columns_that_a_score_makes_besides_its_own():
    parsed = recipe.parse({**GOOD, "clean": ["flagged_ratio", {"flagged_ratio": {"as": "mine"}}, {"language": {"expect": ["zh"], "as": "lang"}}]})
    assert [list(step.columns()) for step in recipe.steps(parsed)] == [
        ["flagged_ratio", "flagged_category"], ["mine", "mine_flagged_category"], ["lang", "lang_label"]]
