"""Chat templates: of each family, what the assistant writes is found by structure, and only that; what cannot be is refused with the line."""

import importlib.util
from pathlib import Path

import pytest

from gristmill.jobs import chat_templates, template_marks
from gristmill.jobs.chat_templates import Unrendered
from gristmill.udfs.errors import RecipeError

VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}
ADDED = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|observation|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>"]
# Short templates that behave as those of each family do: their headers, their ends, what they do with the system message and reasoning.
CHATML = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}"""
QWEN25 = """{%- if tools %}{{- '<|im_start|>system\n' }}{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}{{- '<|im_end|>\n' }}
{%- elif messages[0].role != 'system' %}{{- '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}{%- endif %}
{%- for message in messages %}
    {%- if message.role != 'assistant' and message.role != 'tool' or (message.role == 'assistant' and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant' }}{%- if message.content %}{{- '\n' + message.content }}{%- endif %}
        {%- for call in message.tool_calls %}
            {%- if call.function is defined %}{%- set call = call.function %}{%- endif %}
            {{- '\n<tool_call>\n{"name": "' + call.name + '", "arguments": ' + (call.arguments | tojson) + '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""
QWEN3 = """{%- set ns = namespace(last=messages|length - 1, looking=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.looking and message.role == 'user' %}{%- set ns.looking = false %}{%- set ns.last = index %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_start|>assistant\n' }}
        {%- if loop.index0 > ns.last %}{{- '<think>\n' + (message.reasoning_content or '') + '\n</think>\n\n' }}{%- endif %}
        {{- message.content + '<|im_end|>\n' }}
    {%- else %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}"""
THINKS = QWEN3.replace("{{- '<|im_start|>assistant\n' }}\n    {%- if enable", "{{- '<|im_start|>assistant\n<think>\n' }}\n    {%- if enable")
LLAMA3 = """{{- bos_token }}{% if strftime_now is defined %}{{- 'Today: ' + strftime_now('%d %b %Y') }}{% endif %}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
MISTRAL = """{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set rest = messages[1:] %}{%- else %}{%- set rest = messages %}{%- endif %}
{{- bos_token }}
{%- for message in rest %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('roles must alternate') }}{%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.last and system is defined %}{{- '[INST] ' + system + '\n\n' + message['content'] + ' [/INST]' }}{%- else %}{{- '[INST] ' + message['content'] + ' [/INST]' }}{%- endif %}
    {%- else %}{{- ' ' + message['content'] + eos_token }}{%- endif %}
{%- endfor %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}
{%- if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}
{{- '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
GLM4 = """[gMASK]<sop>{%- for m in messages %}
{%- if m.role == 'user' %}<|user|>
{{ m.content }}
{%- elif m.role == 'assistant' %}<|assistant|>
{{ m.content }}{%- for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }}{% for k, v in c.function.arguments.items() %}<arg>{{ k }}</arg>{% endfor %}</tool_call>{%- endfor %}
{%- elif m.role == 'tool' %}<|observation|>
{{ m.content }}
{%- else %}<|system|>
{{ m.content }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}<|assistant|>{%- endif %}"""
DEEPSEEK = """{% set ns = namespace(system='', tool=false) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system = message['content'] %}{% endif %}{%- endfor %}
{{- bos_token }}{{ ns.system }}
{%- for message in messages %}
{%- if message['role'] == 'user' %}{%- set ns.tool = false %}{{- '<User>' + message['content'] }}{% endif %}
{%- if message['role'] == 'assistant' and 'tool_calls' in message %}{%- for c in message['tool_calls'] %}{{- '<Assistant><calls>' + c['function']['name'] + '\n```json\n' + c['function']['arguments'] + '\n```' }}{% endfor %}{{- '</calls><end>' }}{% endif %}
{%- if message['role'] == 'assistant' and 'tool_calls' not in message %}{%- if ns.tool %}{{- '</outputs>' + message['content'] + '<end>' }}{% set ns.tool = false %}{% else %}{{- '<Assistant>' + message['content'] + '<end>' }}{% endif %}{% endif %}
{%- if message['role'] == 'tool' %}{%- set ns.tool = true %}{{- '<outputs>' + message['content'] }}{% endif %}
{%- endfor %}{% if ns.tool %}{{- '</outputs>' }}{% endif %}{% if add_generation_prompt and not ns.tool %}{{- '<Assistant><think>\n' }}{% endif %}"""
PHI3 = """{% for message in messages %}{% if message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '<|end|>\n' }}{% elif message['role'] == 'assistant' %}
{{- '<|assistant|>\n' + message['content'] + '<|end|>\n' }}{% else %}{{ '<|system|>\n' + message['content'] + '<|end|>\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""
SMOLLM2 = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are SmolLM<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
HARMONY = """{%- for message in messages %}{%- if message.role == 'assistant' %}
{%- if message.thinking %}{{- '<|start|>assistant<|channel|>analysis<|message|>' + message.thinking + '<|end|>' }}{%- endif %}
{{- '<|start|>assistant<|channel|>final<|message|>' + message.content + ('<|return|>' if loop.last else '<|end|>') }}
{%- else %}{{- '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}"""
PARTS = """{% for message in messages %}{{ message['role'] | capitalize }}: {% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}<end>
{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"""
PLAIN = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n\n' }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
END = {"chatml": "<|im_end|>", "qwen2.5": "<|im_end|>", "qwen3": "<|im_end|>", "thinks": "<|im_end|>", "llama3": "<|eot_id|>", "mistral": "</s>", "gemma": "<end_of_turn>",
       "glm4": "<|user|>", "deepseek": "<end>", "phi3": "<|end|>", "smollm2": "<|im_end|>", "harmony": "", "parts": "<end>", "plain": "</s>"}
FAMILIES = {"chatml": CHATML, "qwen2.5": QWEN25, "qwen3": QWEN3, "thinks": THINKS, "llama3": LLAMA3, "mistral": MISTRAL, "gemma": GEMMA, "glm4": GLM4, "deepseek": DEEPSEEK,
            "phi3": PHI3, "smollm2": SMOLLM2, "harmony": HARMONY, "parts": PARTS, "plain": PLAIN}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


CALL = assistant(None, tool_calls=[{"id": "c1", "name": "weather", "arguments": '{"city": "北京"}'}])
RESULT = {"role": "tool", "content": "晴，25 度", "tool_call_id": "c1", "name": "weather"}
CHAT = [user("你好，assistant"), assistant("您好！\n有什么事？"), user("Bye?"), assistant("Good bye.")]


def said(template, messages, tools=None):
    """(the text, what the template says that the assistant wrote, answer by answer)."""
    text, turns = template(messages, tools)
    return text, [text[turn.said : turn.stop] for turn, message in zip(turns, messages, strict=True) if message["role"] == "assistant"]


def opened(source):
    return chat_templates.opened(source, VARIABLES, ADDED)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_assistant_is_found_in_each_family(name):
    template = opened(FAMILIES[name])
    text, found = said(template, CHAT)
    for one, message in zip(found, CHAT[1::2], strict=True):
        assert message["content"] in one
        assert one.endswith(END[name])
        assert "<|im_start|>" not in one
        assert "Bye?" not in one
        assert "你好" not in one
    plain = template_marks.plain(FAMILIES[name])(messages=[chat_templates.templated(message, template.form) for message in CHAT], **VARIABLES)
    kept = text if name not in ("glm4", "plain") else text.replace(END[name], "") if name == "plain" else text.removesuffix(END[name])
    assert kept == plain                                         # nothing is changed but that a missing end of turn is put there
    assert template.mended == "answers"


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("deepseek", "thinks", "plain", "glm4")])
def test_what_is_not_the_assistants_is_the_prompt(name):
    """The text before an answer is what a model is given to answer: the one-turn prompt, with the beginning of the answer's turn."""
    template = opened(FAMILIES[name])
    prompt = template.traced(CHAT[:1], prompt=True).text
    text, turns = template(CHAT[:2])
    assert text[: turns[1].said] == prompt


def test_reasoning_is_trained_where_the_template_shows_it():
    chat = [user("1+1"), assistant("2", reasoning="easy"), user("2+2"), assistant("4", reasoning="hard")]
    assert said(opened(QWEN3), chat)[1] == ["2<|im_end|>", "<think>\nhard\n</think>\n\n4<|im_end|>"]
    assert said(opened(THINKS), chat)[1] == ["2<|im_end|>", "hard\n</think>\n\n4<|im_end|>"]         # the prompt gives <think>
    assert said(opened(HARMONY), chat[:2])[1] == ["<|channel|>analysis<|message|>easy<|end|><|start|>assistant<|channel|>final<|message|>2<|return|>"]


def test_calls_of_tools():
    chat = [user("天气？"), CALL, RESULT, assistant("晴天。"), user("谢谢"), assistant("不客气")]
    text, found = said(opened(QWEN25), chat, [{"type": "function", "function": {"name": "weather"}}])
    assert found == ['\n<tool_call>\n{"name": "weather", "arguments": {"city": "北京"}}\n</tool_call><|im_end|>'.removeprefix("\n"), "晴天。<|im_end|>", "不客气<|im_end|>"]
    assert '"name": "weather"}' in text[: text.index("天气")]
    assert said(opened(GLM4), chat)[1] == ["\n<tool_call>weather<arg>city</arg></tool_call><|observation|>", "\n晴天。<|user|>", "\n不客气<|user|>"]
    assert said(opened(DEEPSEEK), chat)[1] == ['<calls>weather\n```json\n{"city": "北京"}\n```</calls><end>', "晴天。<end>", "不客气<end>"]
    assert said(opened(GLM4), chat[:2])[1] == ["\n<tool_call>weather<arg>city</arg></tool_call>"]          # nobody knows what comes next
    for name in ("llama3", "gemma", "phi3"):                                                                 # which would lose the call
        with pytest.raises(Unrendered, match="shows no calls of tools"):
            opened(FAMILIES[name])(chat)


def test_system_messages_and_greetings():
    system = {"role": "system", "content": "Be kind."}
    assert said(opened(MISTRAL), [system, *CHAT])[1] == [" 您好！\n有什么事？</s>", " Good bye.</s>"]
    assert said(opened(SMOLLM2), [system, *CHAT])[1] == ["您好！\n有什么事？<|im_end|>", "Good bye.<|im_end|>"]
    assert said(opened(SMOLLM2), [assistant("Hello!"), user("Hi")])[1] == ["Hello!<|im_end|>"]          # behind the system message that it makes
    with pytest.raises(Unrendered, match="System role not supported"):
        opened(GEMMA)([system, *CHAT])
    with pytest.raises(Unrendered, match="roles must alternate"):
        opened(MISTRAL)([user("a"), user("b")])


def test_markers_of_the_template_itself():
    inner = "{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}"
    source = "{% for m in messages %}" + inner + "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    template = opened(source)
    assert (template.marked, template.mended) == (True, "")
    assert said(template, CHAT)[1] == ["您好！\n有什么事？<|im_end|>", "Good bye.<|im_end|>"]
    without = opened(source.replace("{{ m.content + '<|im_end|>' }}{% endgeneration %}", "{{ m.content }}{% endgeneration %}{{ '<|im_end|>' }}"))
    assert without.mended == "end of turn"
    assert said(without, CHAT)[1] == ["您好！\n有什么事？<|im_end|>", "Good bye.<|im_end|>"]


def test_the_line_behind_a_block_that_jinja_trims():
    """The newline behind a block tag is no text; where the end of the turn then touches the next turn, it is found all the same."""
    source = "{% for m in messages %}\n<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% if true %}{% endif %}\n{% endfor %}\n{% if add_generation_prompt %}\n<|im_start|>assistant\n{% endif %}"
    text, found = said(opened(source), CHAT)
    assert found == ["您好！\n有什么事？<|im_end|>", "Good bye.<|im_end|>"]
    assert "<|im_end|><|im_start|>" in text


def test_a_message_that_is_not_the_assistants_can_be_trained():
    text, turns = opened(CHATML)(CHAT)
    assert text[turns[2].said : turns[2].stop] == "Bye?<|im_end|>"


def test_the_same_message_twice_is_two():
    one = assistant("好")
    assert said(opened(CHATML), [user("a"), one, user("a"), one])[1] == ["好<|im_end|>"] * 2


def test_it_stands_still():
    assert "Today: 26 Jul 2024" in opened(LLAMA3)(CHAT)[0]


@pytest.mark.parametrize(("source", "message"), [
    ("{% if messages %}\n{{ '<u>' + messages[0].content }}\n{{ '<a>' + messages[1].content }}{% endif %}", r"around line 2: \{\{ '<u>'"),
    ("{% for m in messages %}\n{% if m.role == 'assistant' %}\n{{ m.content | upper }}\n{% else %}{{ m.content }}{% endif %}{% endfor %}", r"around line 3: \{\{ m.content \| upper"),
    ("{% for m in messages %}{{ m.role }}{% endfor %}", r"add|write `\{% generation %\}` before"),
    ("{% set all %}{% for m in messages %}{{ m.role + m.content }}{% endfor %}{% endset %}{{ all }}", r"write `\{% generation %\}` before"),
    ("{% for m in messages %}{{ m.content ", r"is none \(line 1\)"),
    ("{{ ''.__class__.__mro__ }}{% for m in messages %}{{ m.content }}{% endfor %}", "SecurityError|UndefinedError|unsafe"),
    ("{{ messages.append(1) }}{% for m in messages %}{{ m.content }}{% endfor %}", "SecurityError"),
    ("{% for k in range(10 ** 9) %}x{% endfor %}", "OverflowError|Range too big"),
    ("{% set ns = namespace() %}{% set ns.__class__ = 1 %}", "SecurityError"),
    ("{{ lipsum() }}", "lipsum"),
    ("{% include '/etc/passwd' %}", "no loader|TypeError"),
])
def test_templates_that_are_refused(source, message):
    with pytest.raises(RecipeError, match=message):
        opened(source)


def test_tools_of_a_row():
    assert chat_templates.functions(None) is None
    assert chat_templates.functions("[]") is None
    assert chat_templates.functions('[{"name": "f"}]') == [{"type": "function", "function": {"name": "f"}}]
    assert chat_templates.functions('{"type": "function", "function": {"name": "f"}}') == [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(Unrendered, match="no JSON"):
        chat_templates.functions("weather()")


@pytest.mark.parametrize("name", ["cohere", "gemma", "gemma3", "glm4moe", "lfm2", "llama3", "phi3", "qwen2_5", "qwen3_instruct_2507", "qwen2_5_vl"])
def test_as_trl_marks_them(name):
    """TRL has templates with markers for many models, made by hand; of theirs the same is the assistant's."""
    trl = importlib.util.find_spec("trl")
    if trl is None:
        pytest.skip("trl is not installed")
    original, marked = ((Path(trl.origin).parent / "chat_templates" / f"{name}{kind}.jinja").read_text(encoding="utf-8") for kind in ("", "_training"))
    text, _, marks = opened(marked).traced(CHAT)
    theirs = [text[start:stop].rstrip() for start, stop in marks]
    if name == "qwen2_5":
        theirs = [one.removeprefix("\n") for one in theirs]                     # which a prompt gives
    assert said(opened(original), CHAT)[1] == [one for one in theirs if one != "</s>"]         # which phi3 writes behind the last turn
