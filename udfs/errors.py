"""The exceptions that Gristmill raises.

GristmillError
├── RecipeError      a recipe or an argument is wrong; exit status 2
├── AssetError       a model or word list is missing, or is not the file that its manifest names
├── InputError       there is nothing to read, or a column that the recipe names is not there
├── OutputError      the output folder cannot be written, or belongs to something else
├── ErrorRateError   more documents failed than max_error_rate allows; nothing is sealed
├── TrainingError    the loss is no number any more, or a process of the training was lost
└── EngineError      Spark or Ray could not start, or a task failed
"""


class GristmillError(Exception):
    """Whatever Gristmill itself found wrong; the message says what to do."""


class RecipeError(GristmillError):
    """The recipe, or a command's argument, is wrong. Lists every mistake at once."""


class AssetError(GristmillError):
    """A model or word list is missing, unreadable or not the one that was named."""


class InputError(GristmillError):
    """There is nothing to read, or not what the recipe says."""


class OutputError(GristmillError):
    """An output folder cannot be written, is not sealed, or belongs to another recipe."""


class ErrorRateError(GristmillError):
    """More than max_error_rate of the documents failed; the output stays unsealed."""


class EngineError(GristmillError):
    """An engine could not start or lost a task."""


class TrainingError(GristmillError):
    """Training broke: the loss is no number any more, or one of its processes was lost. The last whole checkpoint stays."""
