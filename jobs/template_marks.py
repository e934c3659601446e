"""Marks in a chat template's syntax tree: where a loop takes a message, where it ends, and where `{% generation %}` begins and ends."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

try:
    import jinja2
    import jinja2.ext
    import jinja2.sandbox
    from jinja2 import nodes

    MISSING = False
except ImportError:                              # transformers brings it
    MISSING = True

MARK = re.compile("\ud800([TEGH])(\\d+):(\\d+)\ud801")
TODAY = datetime(2024, 7, 26)              # which templates of Llama 3 print where they are given no clock


def mark(kind: str, loop: int = 0, number: int = 0) -> str:
    return f"\ud800{kind}{loop}:{number}\ud801"


def compiled(source: str) -> tuple[Callable[..., str], bool]:
    """(render(messages=, tools=, add_generation_prompt=, …) -> text with marks, whether it has generation markers)."""
    env, places = _environment(marked=True), dict[int, int]()
    tree = env.parse(source)
    # What is captured is looked at by the template, so no mark goes there.
    captured = {id(loop) for block in tree.find_all((nodes.AssignBlock, nodes.FilterBlock, nodes.CallBlock, nodes.Macro))
                for loop in block.find_all(nodes.For)}
    loops = [loop for loop in tree.find_all(nodes.For) if isinstance(loop.target, nodes.Name) and id(loop) not in captured]
    for number, loop in enumerate(loops):
        call = nodes.Call(nodes.Name("_turn", "load"), [nodes.Const(number), nodes.Name(loop.target.name, "load")], [], None, None)
        loop.body.insert(0, nodes.Output([call]))
    for statements in _bodies(tree):
        for at in reversed(range(len(statements))):
            number = next((number for number, loop in enumerate(loops) if loop is statements[at]), -1)
            if number >= 0:
                statements.insert(at + 1, nodes.Output([nodes.TemplateData(mark("E", number))]))
    if any(node.attr.startswith("__") for node in tree.find_all(nodes.NSRef)):
        raise jinja2.exceptions.SecurityError("a namespace's attribute begins with __")
    for node in tree.find_all(nodes.Node):
        node.lineno = node.lineno or 1
    tree.set_environment(env)

    def turn(loop: int, message: Any) -> str:
        number = places.get(id(message)) if isinstance(message, dict) else None
        return "" if number is None else mark("T", loop, number)

    env.globals["_turn"] = turn
    template = jinja2.Template.from_code(env, env.compile(tree), env.make_globals(None))

    def render(messages: list[Mapping[str, Any]], **more: Any) -> str:
        places.clear()
        places.update({id(message): number for number, message in enumerate(messages)})
        return template.render(messages=messages, **more)

    return render, any(data.data == mark("G") for data in tree.find_all(nodes.TemplateData))


def plain(source: str) -> Callable[..., str]:
    """The template as it is; generation markers mark nothing."""
    return _environment(marked=False).from_string(source).render


def _bodies(node: Any) -> Iterator[list[Any]]:
    """Every list of statements in a syntax tree."""
    for _, value in node.iter_fields():
        if isinstance(value, list) and any(isinstance(one, nodes.Stmt) for one in value):
            yield value
    for child in node.iter_child_nodes():
        yield from _bodies(child)


def _environment(marked: bool) -> Any:
    """What transformers runs a template in, with the same names; what is random or a clock is not there, or stands still."""

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}                    # noqa: RUF012 - jinja2 asks for it so

        def parse(self, parser: Any) -> list[Any]:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            start, end = (nodes.Output([nodes.TemplateData(mark(kind) if marked else "")], lineno=line) for kind in "GH")
            return [start, *body, end]

    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    extensions = [Generation, jinja2.ext.loopcontrols]
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    del env.globals["lipsum"], env.filters["random"]
    env.filters["tojson"] = tojson
    env.globals |= {"raise_exception": raise_exception, "strftime_now": TODAY.strftime, "dict": lambda **fields: dict(**fields)}
    return env


def answers(source: str) -> tuple[int, str]:
    """(number, text) of the line that most likely writes an assistant's message: it outputs a content where the role is the assistant's."""
    lines = source.splitlines() or [""]
    tree = _environment(marked=False).parse(source)
    outputs = [out for test in tree.find_all(nodes.If) if _says(test.test, "assistant") for out in test.find_all(nodes.Output)]
    found = [out.lineno for out in [*outputs, *tree.find_all(nodes.Output)] if _says(out, "content")]
    line = found[0] if found else 1
    return line, lines[line - 1].strip()[:120]


def _says(node: Any, word: str) -> bool:
    return any(word in (getattr(one, "value", None), getattr(one, "attr", None), getattr(one, "name", None))
               for one in [node, *node.find_all(nodes.Node)] if isinstance(one, nodes.Const | nodes.Getattr | nodes.Name))
