"""Distillation of logits: the loss is the divergence that it says, over as many processes as one likes, from a teacher loaded or served."""

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

import small_llama
import train_made
from gristmill.udfs.errors import InputError, RecipeError, TrainingError
from test_train_methods import together

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("deepspeed")

SAID = -3.0                               # what the scripted teacher holds of any token, as a logarithm


def loaded(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def lines(folder):
    """The log of a training."""
    return [json.loads(line) for line in (folder / "train" / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_llama.make(tmp_path_factory.mktemp("model") / "student")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, model):
    """The student with other weights, and more rows of embeddings than there are tokens."""
    return small_llama.changed(tmp_path_factory.mktemp("model") / "teacher", model, rows=1600)


class Teacher(BaseHTTPRequestHandler):
    """Answers as `vllm serve` does, with likelihoods made up: SAID for the token that is there, more for another one."""

    def do_GET(self):
        self.answer({"data": [{"id": "made"}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            return self.answer({"tokens": self.server.tokens.encode(asked["prompt"], add_special_tokens=False)})
        self.server.asked.append(asked)
        choices = []
        for ids in asked["prompt"]:
            told = [{str(one): {"logprob": SAID, "rank": 9}, str((one + 1) % 1000): {"logprob": -0.5, "rank": 1}} for one in ids[1:]]
            choices.append({"prompt_logprobs": [None, *told]})
        return self.answer({"choices": choices})

    def answer(self, said):
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server(model):
    from transformers import AutoTokenizer

    made = ThreadingHTTPServer(("127.0.0.1", 0), Teacher)
    made.asked, made.tokens = [], AutoTokenizer.from_pretrained(model)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def runs(tmp_path_factory, model, teacher, server):
    """{name: the folder of a run}: several batches at once in one process and in two; 30 steps; a teacher that is served."""
    folder = tmp_path_factory.mktemp("runs")
    packed = [train_made.made_set(folder / f"packed_{n}", "packed", 40, seed=n) for n in (0, 1)]
    prompts = train_made.made_set(folder / "prompts", "prompts", 40)
    mixed = [{"path": one, "ratio": ratio} for one, ratio in zip(packed, (0.75, 0.25), strict=True)]

    def spec(name, data, ranks, preset, **more):
        more = {"deepspeed": preset, "processes": ranks, "micro_batch": 4 // ranks, "teacher": teacher} | more
        return train_made.specification(folder / name, "distil", model, data, **more)

    data = {"on_policy": 0, "beta": 0.5, "temperature": 2.0, "validate_every": 3, "held_out": packed[0], "max_completion": None}
    named = {"base_url": f"http://127.0.0.1:{server.server_port}/v1", "top_logprobs": 1}
    few = train_made.made_set(folder / "few", "packed", 8, held_out=0, distinct=8)
    learn = {"on_policy": 0, "beta": 0.0, "steps": 30, "lr": 5e-3, "max_completion": None}
    together([spec("none", mixed, 1, "none", **data), spec("learn", [few], 1, "none", **learn)], 1, folder)
    together([*(spec(preset, mixed, 2, preset, **data) for preset in ("zero2", "zero3")),
              spec("served", [prompts], 2, "zero3", beta=1.0, teacher=named)], 2, folder)
    return folder


def slowly(student, teacher, beta, temperature, rows):
    """The mean divergence of whole logits over the trained tokens, a sample at a time, written down as its definition is."""
    total, count = 0.0, 0
    for row in rows:
        at = 0
        for length in row["lengths"]:
            ids, mask = (torch.tensor([row[name][at : at + length]]) for name in ("input_ids", "loss_mask"))
            at += length
            p, q = (torch.softmax(one(ids).logits[0, :-1, : student.config.vocab_size].double() / temperature, -1) for one in (teacher, student))
            p = p.detach()
            m = p if beta == 1 else q if beta == 0 else beta * p + (1 - beta) * q              # at either end the other of the two
            forward, reverse = ((one * (one.log() - m.log())).sum(-1) for one in (p, q))
            lost = forward if beta == 0 else reverse if beta == 1 else beta * forward + (1 - beta) * reverse
            total, count = total + (lost * mask[0, 1:]).sum(), count + int(mask[0, 1:].sum())
    return total / count


def batch(rows):
    """Rows in one padded batch, as Batches makes it."""
    wide = max(len(row["input_ids"]) for row in rows)
    made = {name: torch.full((len(rows), wide), fill) for name, fill in (("input_ids", 0), ("labels", -100))}
    made["position_ids"] = torch.zeros(len(rows), wide, dtype=torch.long)
    for n, row in enumerate(rows):
        size = len(row["input_ids"])
        starts = [k == 0 for length in row["lengths"] for k in range(length)]
        made["input_ids"][n, :size] = torch.tensor(row["input_ids"])
        made["labels"][n, :size] = torch.tensor([one if kept and not first else -100 for one, kept, first in
                                                 zip(row["input_ids"], row["loss_mask"], starts, strict=True)])
        made["position_ids"][n] = torch.tensor([k for length in (*row["lengths"], wide - size) for k in range(length)])
    return made


@pytest.mark.parametrize(("beta", "temperature"), [(0.0, 1.0), (0.3, 2.0), (1.0, 1.0)])
def test_loss_and_gradient_are_those_of_the_definition(runs, model, teacher, beta, temperature):
    from gristmill.training import distil

    one, other, taught = loaded(model), loaded(model), loaded(teacher)
    rows = train_made.rows(runs / "packed_0" / "train")[:3]
    made = distil.Distilled()
    made.watch, made.teacher_model = SimpleNamespace(settings={"beta": beta, "temperature": temperature}), taught
    inputs = batch(rows)
    trained = inputs["labels"][:, 1:] != -100
    fast = made.divergence(one, inputs, trained).sum() / trained.sum()
    slow = slowly(other, taught, beta, temperature, rows)
    fast.backward()
    slow.backward()
    assert fast.item() == pytest.approx(slow.item(), abs=1e-6)
    assert fast.item() > 0.001
    for (name, mine), its in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, atol=1e-6, rtol=1e-3, msg=name)
    assert all(each.grad is None for each in taught.parameters())


@pytest.mark.parametrize("preset", ["zero2", "zero3"])
def test_two_processes_lose_as_one_does(runs, preset):
    one, two = (train_made.losses(runs / which) for which in ("none", preset))
    assert len(one) == 3
    assert two == pytest.approx(one, abs=1e-5)
    one, two = ([line["eval"]["loss"] for line in lines(runs / which) if "eval" in line] for which in ("none", preset))
    assert len(one) == 2
    assert two == pytest.approx(one, abs=1e-5)


def test_the_loss_by_source_is_that_of_all(runs):
    done = 0
    for line in (one for one in lines(runs / "zero3") if "tokens_per_second" in one):
        parts = line["sources"].values()
        tokens = sum(one["tokens"] for one in parts)
        assert len(parts) == 2
        assert tokens == line["trained_tokens"] - done
        assert sum(one["loss"] * one["tokens"] for one in parts) / tokens == pytest.approx(line["loss"], abs=1e-5)
        done = line["trained_tokens"]


def test_what_was_forgotten_is_measured_by_likelihood(runs, model):
    before = next(line["loss"] for line in lines(runs / "none") if line.get("event") == "held_out")
    student, total, count = loaded(model), 0.0, 0
    for row in train_made.rows(runs / "packed_0" / "train"):
        at = 0
        for length in row["lengths"]:
            ids, mask = (torch.tensor(row[name][at : at + length]) for name in ("input_ids", "loss_mask"))
            at += length
            with torch.no_grad():
                likely = torch.log_softmax(student(ids[None]).logits[0, :-1], -1)[torch.arange(length - 1), ids[1:]]
            total, count = total - float((likely * mask[1:]).sum()), count + int(mask[1:].sum())
    assert before == pytest.approx(total / count, abs=1e-4)


def test_the_student_comes_to_the_teacher(runs):
    losses = train_made.losses(runs / "learn")
    assert len(losses) == 30
    assert losses[-1] < losses[0] / 5


def test_a_served_teacher_is_asked_for_the_students_own_answers(runs, model, server):
    """The first step's loss, from what was asked and the weights that it began with: reverse KL of (this token, any other)."""
    losses = train_made.losses(runs / "served")
    assert len(losses) == 3
    assert all(one["model"] == "made" and one["prompt_logprobs"] == 1 for one in server.asked)
    sequences = [ids for one in server.asked for ids in one["prompt"]]
    assert len(sequences) == 3 * 8
    student, begins = loaded(model), server.tokens.encode("<|im_start|>assistant\n", add_special_tokens=False)
    lost = []
    for ids in sequences[:8]:
        at = next(k for k in range(len(ids)) if ids[k : k + len(begins)] == begins) + len(begins)
        with torch.no_grad():
            likely = torch.log_softmax(student(torch.tensor([ids])).logits[0, :-1], -1)
        for k in range(at, len(ids)):
            p, q = math.exp(likely[k - 1, ids[k]]), math.exp(SAID)
            lost.append(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    assert losses[0] == pytest.approx(sum(lost) / len(lost), abs=1e-5)


def test_a_teacher_of_another_vocabulary_is_refused(tmp_path, model, teacher):
    from gristmill.training import distil, models

    where = {"folder": model, "gguf": None}
    student, tokens = loaded(model), models.tokenizer(where)
    other = {"folder": small_llama.make(tmp_path / "other", vocabulary=1400), "gguf": None}
    with pytest.raises(InputError, match=r"vocabulary has 1,400 tokens and the student's 1,500"):
        distil.teacher(other, student, tokens, torch.float32, None)
    assert distil.teacher({"folder": teacher, "gguf": None}, student, tokens, torch.float32, None).lm_head.weight.shape[0] == 1600
    with pytest.raises(InputError, match=r"1,500 rows of embeddings and the student 1,600"):
        distil.teacher(where, loaded(teacher), tokens, torch.float32, None)
    numbers = tokens.get_vocab()
    turned = numbers | {"<|im_end|>": numbers["<|im_start|>"], "<|im_start|>": numbers["<|im_end|>"]}
    swapped = type("Swapped", (), {"get_vocab": lambda _: turned, "__len__": lambda _: len(turned)})()
    with pytest.raises(InputError, match=r"numbers its tokens otherwise"):
        distil.alike(student, tokens, student, swapped, "teacher")


def test_a_server_that_is_no_teacher_is_named(server, model):
    from gristmill.training import distil, models

    asked = distil.Asked(f"http://127.0.0.1:{server.server_port}/v1/")
    tokens = models.tokenizer({"folder": model, "gguf": None})
    asked.alike(tokens)
    with pytest.raises(InputError, match="another tokenizer"):
        asked.alike(SimpleNamespace(encode=lambda *_, **__: [1, 2, 3]))
    with pytest.raises(TrainingError, match=r"/v1/nothing does not answer as `vllm serve` does: 501"):
        asked._said("DELETE", f"{asked.base_url}/v1/nothing", {})


@pytest.mark.parametrize(("more", "why"), [
    ({"on_policy": 0.5}, "on_policy: 0.5 would mix"),
    ({"on_policy": 0, "max_completion": 8}, "max_completion: the data has the answers"),
    ({"on_policy": 0, "teacher": {"base_url": "http://teacher:8000"}}, "a served teacher"),
    ({"on_policy": 1, "temperature": 0.5, "teacher": {"base_url": "http://teacher:8000"}}, "temperature: a server says"),
])
def test_what_cannot_be_distilled_is_said_at_load(tmp_path, more, why):
    with pytest.raises(RecipeError, match=why):
        train_made.settings(tmp_path, "distil", "demo", [str(tmp_path)], **more)
