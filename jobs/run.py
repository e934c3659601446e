"""Every section of a recipe, in the order of the flow.

    gristmill run conf/demo.yaml
"""

from collections.abc import Callable
from typing import Any

from gristmill.jobs import (
    audit,
    clean,
    decontaminate,
    dedup,
    infer,
    ingest,
    insight,
    label_conflict,
    mix,
    redact,
    release,
    sample,
    split,
    tokenise,
    train,
)
from gristmill.jobs.recipe import Recipe

# A section's job: (recipe, engine, overwrite) -> passport. The order is the flow's.
SECTIONS: dict[str, Callable[[Recipe, str, bool], dict[str, Any]]] = {
    "ingest": ingest.run, "sample": sample.run, "clean": clean.run, "label_conflict": label_conflict.run, "dedup": dedup.run,
    "decontaminate": decontaminate.run, "redact": redact.run, "infer": infer.run, "split": split.run,
    "mix": mix.run, "insight": insight.run, "audit": audit.run, "release": release.run,
    "tokenise": tokenise.run, "train": train.run,
}


if __name__ == "__main__":
    import sys

    from gristmill.jobs.cli import main

    main(["run", *sys.argv[1:]])
