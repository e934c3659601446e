"""The settings of `infer: {task: label}`, as pydantic models."""

from typing import Literal

import pydantic

from gristmill.jobs.sections import Section
from gristmill.jobs.sections_judge import Judge
from gristmill.jobs.sections_teacher import Teacher


class LabelJudge(Judge):
    """The judge of candidates; `teacher` is who judges, infer.teacher where it is None."""

    form: Literal["scores"] = "scores"
    teacher: Teacher | None = None


class Label(Section):
    """How rows get answers; see jobs/infer_label.py. There are `infer.samples` candidates for each.

    `keep`: the best one, as a conversation, or all with their scores, as ranked rows. `answered`: rows that have an answer already pass
    as they are, or are answered again.
    """

    keep: Literal["best", "all"] = "best"
    answered: Literal["pass", "again"] = "pass"
    judge: LabelJudge = pydantic.Field(default_factory=LabelJudge)
