"""A reward that can be raised: answers of few characters are worth more. For `train: {reward: [conf/rewards/brief.py:brief]}`."""

from typing import Any


def brief(completions: list[Any], **_: Any) -> list[float]:
    """The negative number of characters of each completion, a conversation or a text, in hundreds."""
    return [-len(one[0]["content"] if isinstance(one, list) else one) / 100 for one in completions]
