"""What our training loop costs on top of TRL's own, and what tuning the demonstration model takes: tokens a second in one run.

    scripts/bench train [--steps 30] [--rounds 3] [--hidden 384] [--only wrapper|demo]

wrapper: the same packed rows, model and settings through TRL's SFTTrainer with rows in memory and no callback, and through ours with
         Parquet shards, the log of each step, loss by source and the resumable plan; in turns, so that other work on the machine hits both.
demo:    SmolLM2-135M-Instruct with LoRA on gsm8k, conf/train_sft.yaml: validation loss before and after, tokens a second.
"""

import argparse
import itertools
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests"))
import small_llama
import train_made


def bare(model, folder, rows, steps, batch):
    """Tokens a second of TRL's SFTTrainer over rows in memory, after the first three steps."""
    import datasets
    import torch
    import transformers
    from trl import SFTConfig, SFTTrainer

    made = [{name: row[name] for name in ("input_ids", "position_ids")} | {"labels": [
        token if trained else -100 for token, trained in zip(row["input_ids"], row["loss_mask"], strict=True)]} for row in rows]
    marks = []

    def collate(some):
        width = max(len(one["input_ids"]) for one in some)
        fill = {"input_ids": 0, "labels": -100, "position_ids": 0}
        return {name: torch.tensor([one[name] + [value] * (width - len(one[name])) for one in some]) for name, value in fill.items()}

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_, **__):
            marks.append(time.perf_counter())

    args = SFTConfig(output_dir=str(folder), max_steps=steps, per_device_train_batch_size=batch, learning_rate=1e-4, logging_steps=1,
                     bf16=False, use_cpu=True, gradient_checkpointing=False, save_strategy="no", report_to="none", disable_tqdm=True,
                     max_length=None, remove_unused_columns=False, dataset_kwargs={"skip_prepare_dataset": True}, seed=1)
    trainer = SFTTrainer(model=transformers.AutoModelForCausalLM.from_pretrained(model), args=args, data_collator=collate,
                         train_dataset=datasets.Dataset.from_list(made), processing_class=transformers.AutoTokenizer.from_pretrained(model),
                         callbacks=[Clock()])
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return statistics.median(b - a for a, b in itertools.pairwise(marks[3:]))


def ours(model, folder, data, steps, batch):
    """Seconds a step of our worker, from its log."""
    from accelerate.state import AcceleratorState, GradientState

    from gristmill.training import worker

    spec = train_made.specification(folder, "sft", model, data, steps=steps, lr=1e-4, batch=batch, micro_batch=batch, length=256)
    worker.train(spec, Path(spec["folder"]))
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    seconds = train_made.losses(folder, "seconds")
    return statistics.median(b - a for a, b in itertools.pairwise(seconds[3:]))


def wrapper(given):
    signal.signal = lambda *_: None                       # the worker's handler is for processes that a launcher has started
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = small_llama.make(folder / "model", vocabulary=4000, hidden=given.hidden)
        data = [train_made.made_set(folder / f"set{n}", "packed", 256, seed=n, samples=12) for n in (0, 1)]
        rows = [row for one in data for row in train_made.rows(Path(one) / "train")]
        found = {"bare": [], "ours": []}
        for n in range(given.rounds):
            acts = {"bare": lambda at: bare(model, at, rows, given.steps, 8), "ours": lambda at: ours(model, at, data, given.steps, 8)}
            for name in sorted(acts, reverse=bool(n % 2)):             # in turns, who is first
                found[name].append(acts[name](folder / f"{name}{n}"))
        tokens = 8 * statistics.mean(len(row["input_ids"]) for row in rows)
        each = {name: statistics.median(values) for name, values in found.items()}
        more = ", ".join(f"{b / a:.3f}" for a, b in zip(found["bare"], found["ours"], strict=True))
        slower = each["ours"] / each["bare"] - 1
        print(f"wrapper: TRL alone {tokens / each['bare']:,.0f} tokens/s, ours {tokens / each['ours']:,.0f}: a step takes {slower:+.1%} "
              f"(by round {more}); {tokens:,.0f} tokens and {each['bare'] * 1000:,.0f} ms a step; load {os.getloadavg()[0]:.1f}")


def demo(given):
    import subprocess

    with tempfile.TemporaryDirectory() as scratch:
        start, changed = time.perf_counter(), ["--engine", "local", "--set", f"workdir={scratch}"]
        subprocess.run([sys.executable, "-m", "gristmill.jobs.cli", "run", "conf/train_sft.yaml", *changed], check=True,
                       stdout=subprocess.DEVNULL)
        lines = [json.loads(line) for line in (Path(scratch) / "train" / "metrics.jsonl").read_text().splitlines()]
    evals = [line["eval"]["loss"] for line in lines if "eval" in line]
    steps = [line for line in lines if "tokens_per_second" in line]
    last = steps[-1]
    print(f"demo: {len(steps)} steps of SmolLM2-135M with LoRA in {last['seconds']:,.0f} s, {last['tokens'] / last['seconds']:,.0f} "
          f"tokens/s, {last['memory_mb']:,} MB; validation loss {evals[0]:.3f} before and {evals[-1]:.3f} after; "
          f"{time.perf_counter() - start:,.0f} s from the raw rows")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--only", choices=["wrapper", "demo"])
    given = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name, act in (("wrapper", wrapper), ("demo", demo)):
        if given.only in (None, name):
            act(given)
