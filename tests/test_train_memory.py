"""The memory estimate: counts against real models, formulas against what is really kept, and real peaks."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import shared_base
import torch
from memory_cases import LENGTHS, recipe, shape, small
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from training_cases import make_workspace

from train.fitting import GIB
from train.memory import (
    Lengths,
    activation_bytes,
    adaptable,
    build_empty,
    estimate,
    outside_decoder,
    shape_of,
    unfit_targets,
)
from train.recipe import Lora
from train.training import Request, train


class Live(TorchDispatchMode):
    """Bytes of the tensors that live at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in tree_flatten(out)[0]:
            storage = one.untyped_storage() if isinstance(one, torch.Tensor) else None
            if storage is not None and storage.nbytes() > 100_000 and storage.data_ptr() not in self.known:
                self.known[storage.data_ptr()] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.forget, storage.data_ptr())
        return out

    def forget(self, place: int) -> None:
        self.now -= self.known.pop(place, 0)


def test_an_evaluation_with_the_kl_holds_no_more_logits_than_estimated() -> None:
    """The vocabulary is what counts here: 60,000 tokens, 512 answer tokens in a batch."""
    from transformers import LlamaForCausalLM

    from train.guards import Example, measure
    from train.memory import _head_bytes
    from train.model import attach_lora

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = small(vocab_size=60_000, num_key_value_heads=1, head_dim=16, tie_word_embeddings=True, **sizes)
    plan = recipe({"compute": "float32", "bits": None}, {"rank": 2}, micro_batch=2, device="cpu")
    model = attach_lora(LlamaForCausalLM(config).eval(), plan.lora, 1)
    rows = [Example(tuple(range(5, 5 + 8 + 64)), 8)] * 8
    with Live() as live:
        measure(model, rows, 0, 8, with_kl=True)
    told = _head_bytes(shape_of(config, plan.lora), plan, Lengths(72, 64, 0, 0), "cpu")
    assert 0.7 * told < live.peak < 1.05 * told


@pytest.mark.parametrize(
    ("targets", "unfit"),
    [
        (("q_proj", "down_proj"), []),
        (("q_proj", "v_porj"), ["v_porj"]),
        (("lm_head",), ["lm_head"]),
        (".*_proj", []),
        (("q_proj", "embed_tokens"), []),
        ("wq", ["wq"]),
        (("q_proj", "input_layernorm"), ["input_layernorm"]),
        (("self_attn",), ["self_attn"]),
        (".*layers.*", [".*layers.*"]),
        (".*(q_proj|lm_head)", [".*(q_proj|lm_head)"]),
    ],
)
def test_targets_that_name_no_layer_or_one_that_takes_no_adapter(targets: Any, unfit: list[str]) -> None:
    modules = adaptable(small(tie_word_embeddings=False), Lora(targets=targets))
    assert unfit_targets(modules, targets) == unfit


@pytest.mark.parametrize("family", ["Llama", "Qwen3", "Gemma2", "Gemma3"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "down_proj")])
def test_counts_are_those_of_the_real_model(tmp_path: Path, family: str, tied: bool, targets: Any) -> None:

    from train.model import attach_lora, load_base

    config = small(family, tie_word_embeddings=tied) if family != "Gemma3" else shared_base.gemma3()
    plan = recipe({"compute": "float32"}, {"rank": 3, "targets": targets}, device="cpu")
    found = shape_of(config, plan.lora)
    base = plan.base.model_copy(update={"model": str(shared_base.save(config, tmp_path))})
    model = attach_lora(load_base(base, plan.quantization, "cpu")[0], plan.lora, 1)
    four = [one for one in model.parameters() if type(one).__name__ == "Params4bit"]
    assert sum(one.quant_state.shape.numel() for one in four) == found.quantised
    assert sum(one.numel() for one in model.parameters() if one.requires_grad) == found.adapter
    kept = {id(one): one for one in model.parameters() if not one.requires_grad and type(one).__name__ != "Params4bit"}
    assert sum(one.numel() for one in kept.values()) == found.kept
    constants = sum(_constant_bytes(one.quant_state) for one in four)
    parts = estimate(found, plan, LENGTHS, "cpu").parts
    assert parts["base, 4 bits"] == pytest.approx(sum(one.numel() for one in four) + constants, rel=0.02)
    assert parts["embeddings, head and norms"] == sum(one.numel() * one.element_size() for one in kept.values())


def _constant_bytes(state: Any) -> int:
    """Bytes of a quantised weight's constants, both levels; bitsandbytes' own code tables are not the weight's."""
    return int(state.absmax.nbytes + state.state2.absmax.nbytes)


def test_sizes_that_are_published() -> None:
    found = shape()
    assert found.quantised + found.kept == 4_022_468_096
    parts = estimate(found, recipe(), LENGTHS, "cuda").parts
    single = estimate(found, recipe({"double": False}), LENGTHS, "cuda").parts
    # QLoRA, section 3: constants take 0.5 bits per parameter, 0.127 with double quantisation
    assert parts["base, 4 bits"] * 8 / found.quantised == pytest.approx(4.127, abs=1e-3)
    assert single["base, 4 bits"] * 8 / found.quantised == pytest.approx(4.5, abs=1e-3)


@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_activations_are_what_autograd_keeps(family: str, compute: str, dropout: float) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from train.model import attach_lora

    plan = recipe({"compute": compute, "bits": None}, {"dropout": dropout, "rank": 8}, gradient_checkpointing=False)
    model = AutoModelForCausalLM.from_config(small(family), dtype=getattr(torch, compute)).requires_grad_(False)
    tuned = attach_lora(model, plan.lora, 1).train()
    found = shape_of(small(family), plan.lora)
    kept = _kept_bytes(tuned, compute)
    assert activation_bytes(found, plan, 2 * 128, "cpu") == pytest.approx(kept, rel=0.25)
    tuned.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    checked = recipe({"compute": compute, "bits": None}, {"dropout": dropout, "rank": 8}, gradient_checkpointing=True)
    layer = activation_bytes(replace(found, layers=1, inputs=found.inputs // 4), plan, 256, "cpu")
    least = activation_bytes(found, checked, 256, "cpu") - layer  # all of one layer is kept only on the way back
    assert least + 256 * 128 * 4 == pytest.approx(_kept_bytes(tuned, compute), rel=0.1)


def _kept_bytes(model: Any, compute: str) -> int:
    """Bytes of the tensors that a forward pass of 2 x 128 tokens keeps for the backward pass, each storage once."""
    import torch

    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address is used twice
        return tensor

    ids = torch.randint(0, 1000, (2, 128))
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=compute == "bfloat16"),
    ):
        model.get_base_model().model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return sum(one.untyped_storage().nbytes() for one in kept.values())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_more_takes_more(device: str) -> None:
    found, plan = shape(), recipe(gradient_checkpointing=False)

    def total(lengths: Lengths = LENGTHS, **training: Any) -> int:
        update = {"training": plan.training.model_copy(update=training)}
        return estimate(found, plan.model_copy(update=update), lengths, device).total

    assert total() < total(micro_batch=4) < total(micro_batch=8)
    assert total() < total(replace(LENGTHS, longest=2000)) < total(replace(LENGTHS, longest=4000))
    assert total(replace(LENGTHS, kl_answer=20)) < total()
    assert total(gradient_checkpointing=True) < 0.7 * total()
    assert total(gradient_checkpointing=None) == total(gradient_checkpointing=device == "cuda")
    without = estimate(found, recipe({"bits": None}, gradient_checkpointing=False), LENGTHS, device)
    assert without.total > total()


PEAK = """
import json, resource, sys
from pathlib import Path
from curate.workspace import Workspace
from train.training import Request, train
place = Workspace(Path(sys.argv[1]))
train(place, Request(place.recipe))
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
"""


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [1, 32])
def test_the_estimate_against_a_real_peak(tmp_path: Path, micro_batch: int) -> None:
    import yaml

    from curate.release import load_release
    from train.fitting import fit_of
    from train.preparation import prepare
    from train.recipe import load_recipe

    sizes = {"vocab_size": 320, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8}
    base = shared_base.save(small(**sizes, initializer_range=0.02), tmp_path / "model")
    place = make_workspace(tmp_path / "ws", base, adapter_scale=None, rehearsal=None, kl_to_base=None)
    data = yaml.safe_load(place.recipe.read_text())
    data["training"] |= {"batch": 32, "micro_batch": micro_batch, "epochs": 1.5, "learning_rate": 1e-4}
    place.recipe.write_text(yaml.safe_dump(data))
    wanted = fit_of(prepare(load_recipe(place.recipe), load_release(place.find("release", None)))).estimate.total
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PEAK, str(place.root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peak = json.loads(done.stdout.splitlines()[-1])
    print(f"estimated {wanted / GIB:.2f} GiB, measured {peak / GIB:.2f} GiB")
    assert 0.6 < wanted / peak < 1.7


@pytest.mark.slow
@pytest.mark.parametrize("family", ["Llama", "Gemma2"])
def test_the_time_against_that_of_real_steps(tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    import yaml

    from curate.release import load_release
    from train.fitting import fit_of
    from train.preparation import prepare
    from train.recipe import load_recipe
    from train.timing import measure_duration

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # or two of them wait for each other on a machine that is shared
    before_test = torch.get_num_threads()
    torch.set_num_threads(1)
    sizes = {"vocab_size": 320, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6}
    base = shared_base.save(small(family, **sizes), tmp_path / "model")
    place = make_workspace(tmp_path / "ws", base, adapter_scale=None, rehearsal=None, kl_to_base=None)
    data = yaml.safe_load(place.recipe.read_text())
    data["training"] |= {"batch": 8, "micro_batch": 4, "epochs": 3, "learning_rate": 1e-4}
    place.recipe.write_text(yaml.safe_dump(data))
    prepared = prepare(load_recipe(place.recipe), load_release(place.find("release", None)))
    wanted = measure_duration(fit_of(prepared), prepared)
    run = train(place, Request(place.recipe))
    torch.set_num_threads(before_test)
    told = [json.loads(line) for line in (run.directory / "log.jsonl").read_text().splitlines()]
    at = [one["seconds"] for one in told if one["event"] == "step"]
    assert len(at) == wanted.steps
    seen = statistics.median(after - before for before, after in itertools.pairwise(at))  # few of them hold evaluations
    print(f"estimated {wanted.seconds_per_step:.3f} s per step, measured {seen:.3f} s")
    assert 0.25 < wanted.seconds_per_step / seen < 4  # machines are shared


def test_names_mean_the_text_decoder_and_an_expression_what_it_says() -> None:
    model = build_empty(shared_base.gemma3())
    assert outside_decoder(model, Lora(targets=("q_proj",)))
    assert outside_decoder(model, Lora(targets=".*vision_tower.*q_proj")) is None


@pytest.mark.parametrize(("targets", "unfit"), [(("q_proj", "fc1"), ["fc1"]), (".*vision_tower.*fc1", [])])
def test_a_name_that_stands_beside_the_decoder_alone_is_unfit(targets: Any, unfit: list[str]) -> None:
    assert unfit_targets(adaptable(shared_base.gemma3(), Lora(targets=targets)), targets) == unfit
