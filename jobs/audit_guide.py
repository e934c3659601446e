"""What is asked of a row: the reasons for which it can be rejected, and the guide for those who read, in English and Chinese."""

from typing import NamedTuple


class Reason(NamedTuple):
    """A reason for a rejection: its names, and the question that it answers."""

    en: str
    zh: str
    question_en: str
    question_zh: str


REASONS = {
    "incomplete": Reason("incomplete", "不完整", "Is everything there: a clear request, an answer to all of it, a proper end?",
                         "内容完整吗：问题清楚，每一问都有回答，结尾没有被截断？"),
    "instruction": Reason("instruction", "不守指令", "Does the answer obey: length, format, persona, words that must or must not occur?",
                          "回答是否遵守了全部要求：字数、格式、角色、必须或禁止出现的词？"),
    "facts": Reason("facts", "事实错误", "Are names, numbers, dates, code and reasoning right, and does the answer not contradict itself?",
                    "人名、数字、日期、代码和推理正确吗？前后一致吗？"),
    "language": Reason("language", "语言", "Is it in the language of the request, fluent, without damaged characters?",
                       "语言与提问一致吗？通顺吗？有没有乱码？"),
    "typography": Reason("typography", "排版", "Are punctuation (full width in Chinese), quotes, lists, line breaks, Markdown, JSON right?",
                         "标点（中文用全角）、成对的引号和括号、列表、换行、Markdown、JSON 是否规范？"),
    "privacy": Reason("privacy", "隐私", "Is there no personal data: names with numbers, addresses, accounts, keys?",
                      "有没有个人信息：姓名与号码、住址、账号、密钥？"),
    "harm": Reason("harm", "有害", "Is there nothing illegal, insulting, sexual or dangerous, and no refusal without need?",
                   "有没有违法、侮辱、色情、危险的内容？有没有不必要的拒答？"),
    "label": Reason("label", "标签", "Is the label right: the better answer chosen, the score, the class?",
                    "标签对吗：优选的回答确实更好，评分和类别正确？"),
    "other": Reason("other", "其他", "Anything else for which you would not train on this row: say it in the note.",
                    "其他不该用来训练的原因，请写在备注里。"),
}
ACCEPT = {"accept", "accepted", "ok", "yes", "y", "pass", "good", "true", "1", "1.0", "接受", "通过", "合格", "是", "对", "✓", "√"}
REJECT = {"reject", "rejected", "no", "n", "fail", "bad", "false", "0", "0.0", "拒绝", "不通过", "不合格", "否", "错", "✗", "×", "x"}

GUIDE = """# Reading the rows of {name}

{drawn:,} of {population:,} rows were drawn (draw `{draw}`). {reviewers} reviewers read each of them, alone: do not look at one another's
verdicts and do not talk about single rows before all are done, or the agreement between you says nothing. The set passes where at least
{threshold:.1%} of the rows are accepted.

**Accept** a row if you would train on it as it stands. **Reject** it if one of these questions has the wrong answer, and say which:

| key | reason | question |
|---|---|---|
{questions_en}

When in doubt, reject and write a note. A row that you cannot judge gets no verdict.

Three ways, whichever you like; send back the file:

- `audit.html`: open it in a browser (nothing is sent anywhere). Write your name, then <kbd>A</kbd> accepts, <kbd>R</kbd> rejects,
  <kbd>1</kbd> to <kbd>9</kbd> give the reasons, <kbd>D</kbd> downloads your verdicts. They are kept in the browser until then.
- `audit.csv`: for Excel, WPS or LibreOffice. Make a copy that has your name (`anna.csv`), write `accept` or `reject` into `verdict`,
  reasons into `reason` (several: `facts; language`), and save it as CSV. A `'` before a text that begins with = + - @ is ours, so that
  no program takes it for a formula. Do not change `item`.
- Label Studio: import `label_studio.json`, with `label_studio.xml` as the labelling interface; export as JSON.

# 审核说明：{name}

从 {population:,} 行中抽取了 {drawn:,} 行（批次 `{draw}`），每行由 {reviewers} 人各自独立审核：
全部完成之前请不要看别人的结论，也不要讨论具体的行，否则一致率没有意义。接受的比例达到 {threshold:.1%} 为通过。

如果这一行可以原样用于训练，请**接受**（accept）；只要下面有一问的答案不合格，请**拒绝**（reject）并注明原因：

| 键 | 原因 | 问题 |
|---|---|---|
{questions_zh}

拿不准时请拒绝并写备注；无法判断的行留空。

三种方式任选其一，完成后把文件交回：

- `audit.html`：用浏览器打开（不联网）。先写姓名，再按 <kbd>A</kbd> 接受、<kbd>R</kbd> 拒绝、<kbd>1</kbd>～<kbd>9</kbd> 选原因、
  <kbd>D</kbd> 下载结论。下载之前结论保存在浏览器里。
- `audit.csv`：用 Excel、WPS 或 LibreOffice 打开。请另存为带自己名字的副本（如 `张三.csv`），在 `verdict` 列填“接受”或“拒绝”，
  在 `reason` 列填原因（多个用分号隔开），存为 CSV。以 = + - @ 开头的文字前面的 `'` 是我们加的，以免被当作公式。请不要改动 `item` 列。
- Label Studio：导入 `label_studio.json`，标注界面用 `label_studio.xml`，导出 JSON。
"""


def reason_of(word: str) -> str | None:
    """The key of a reason by its key or one of its names; None for any other word."""
    folded = word.strip().casefold()
    return next((key for key, reason in REASONS.items() if folded in (key, reason.en.casefold(), reason.zh)), None)


def guide(name: str, drawn: int, population: int, draw: str, reviewers: int, threshold: float) -> str:
    """guide.md."""
    numbered = list(enumerate(REASONS.items(), 1))
    return GUIDE.format(
        name=name, drawn=drawn, population=population, draw=draw, reviewers=reviewers, threshold=threshold,
        questions_en="\n".join(f"| {n} | {key} | {reason.question_en} |" for n, (key, reason) in numbered),
        questions_zh="\n".join(f"| {n} | {reason.zh} `{key}` | {reason.question_zh} |" for n, (key, reason) in numbered),
    )
