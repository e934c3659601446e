"""What our training loop costs on top of TRL's own, and what tuning the demonstration model takes: tokens a second in one run.

    scripts/bench train [--steps 100] [--hidden 384] [--only wrapper|demo]

wrapper: the same packed rows, model and settings through TRL's SFTTrainer with rows in memory and no callback, and through ours with
         Parquet shards, the log of each step, loss by source and the resumable plan. Two processes take turns, a step each, so that what
         else goes on in the machine hits both, and pairs of steps are compared.
demo:    SmolLM2-135M-Instruct with LoRA on gsm8k, conf/train_sft.yaml: validation loss before and after, tokens a second.
"""

import argparse
import json
import multiprocessing
import os
import random
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
    """TRL's SFTTrainer over rows in memory."""
    import datasets
    import torch
    import transformers
    from trl import SFTConfig, SFTTrainer

    made = [{name: row[name] for name in ("input_ids", "position_ids")} | {"labels": [
        token if trained else -100 for token, trained in zip(row["input_ids"], row["loss_mask"], strict=True)]} for row in rows]

    def collate(some):
        width = max(len(one["input_ids"]) for one in some)
        fill = {"input_ids": 0, "labels": -100, "position_ids": 0}
        return {name: torch.tensor([one[name] + [value] * (width - len(one[name])) for one in some]) for name, value in fill.items()}

    args = SFTConfig(output_dir=str(folder), max_steps=steps, per_device_train_batch_size=batch, learning_rate=1e-4, logging_steps=1,
                     bf16=False, use_cpu=True, gradient_checkpointing=False, save_strategy="no", report_to="none", disable_tqdm=True,
                     max_length=None, remove_unused_columns=False, dataset_kwargs={"skip_prepare_dataset": True}, seed=1)
    trainer = SFTTrainer(model=transformers.AutoModelForCausalLM.from_pretrained(model), args=args, data_collator=collate,
                         train_dataset=datasets.Dataset.from_list(made), processing_class=transformers.AutoTokenizer.from_pretrained(model))
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()


def ours(model, folder, data, steps, batch):
    """Our worker."""
    from gristmill.training import worker

    signal.signal = lambda *_: None                       # its handler is for processes that a launcher has started
    spec = train_made.specification(folder, "sft", model, data, steps=steps, lr=1e-4, batch=batch, micro_batch=batch, length=256)
    worker.train(spec, Path(spec["folder"]))


def in_turns(pipe, train, *args):
    """Train in this process; from the end of the first step on each waits for its turn, and its seconds are said."""
    from transformers.trainer_callback import CallbackHandler

    whole, began = CallbackHandler.on_step_end, None

    def on_step_end(self, *args):
        nonlocal began
        found = whole(self, *args)
        pipe.send(time.perf_counter() - began if began else None)
        pipe.recv()
        began = time.perf_counter()
        return found

    CallbackHandler.on_step_end = on_step_end
    train(*args)


def wrapper(given):
    spawned = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        folder, pipes, seconds = Path(scratch), {}, {"bare": [], "ours": []}
        model = small_llama.make(folder / "model", vocabulary=4000, hidden=given.hidden)
        data = [train_made.made_set(folder / f"set{n}", "packed", 256, seed=n, samples=12) for n in (0, 1)]
        rows = [row for one in data for row in train_made.rows(Path(one) / "train")]
        for name, act, material in (("bare", bare, rows), ("ours", ours, data)):
            pipes[name], theirs = spawned.Pipe()
            spawned.Process(target=in_turns, args=(theirs, act, model, folder / name, material, given.steps + 9, 8), daemon=True).start()
            pipes[name].recv()                                         # one after the other: loading is not measured
        for n in range(given.steps + 3):
            for name in sorted(pipes, reverse=bool(n % 2)):            # in turns, who is first
                pipes[name].send(None)
                seconds[name].append(pipes[name].recv())
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
    pairs = [b / a for a, b in zip(seconds["bare"][3:], seconds["ours"][3:], strict=True)]
    low, middle, high = statistics.quantiles(pairs, n=4)
    again = random.Random(0)
    medians = sorted(statistics.median(again.choices(pairs, k=len(pairs))) for _ in range(2000))
    tokens, step = 8 * statistics.mean(len(row["input_ids"]) for row in rows), statistics.median(seconds["bare"][3:])
    total = sum(seconds["ours"][3:]) / sum(seconds["bare"][3:]) - 1
    print(f"wrapper: {len(pairs)} pairs of steps in turns, {tokens:,.0f} tokens and {step * 1000:,.0f} ms with TRL alone: ours take "
          f"{middle - 1:+.1%} in the middle (95 % between {medians[50] - 1:+.1%} and {medians[-51] - 1:+.1%}; half of all pairs between "
          f"{low - 1:+.1%} and {high - 1:+.1%}), all of them together {total:+.1%}; load {os.getloadavg()[0]:.1f}")


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
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--only", choices=["wrapper", "demo"])
    given = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name, act in (("wrapper", wrapper), ("demo", demo)):
        if given.only in (None, name):
            act(given)
