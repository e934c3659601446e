if __name__ != "gristmill.jobs":
    raise ImportError(f"import gristmill.jobs, not {__name__}: a second import name would make a second copy of the registry")

from gristmill.jobs.functions import register

__all__ = ["register"]
