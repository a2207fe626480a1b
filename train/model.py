"""The model at the edge: the base in 4 bits, LoRA on it, a finished run's adapter at its scale."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curate.errors import TrainingError, WorkspaceError
from curate.files import sha256_text, sha256_tree
from curate.manifest import NAME, Input, read_manifest
from train.hub import hub_errors, origin
from train.processes import is_sharded
from train.recipe import Base, Lora, Quantization
from train.rendering import with_arguments
from train.run import Run


def quiet() -> None:
    """Set up the libraries: no telemetry, no progress bars of theirs, no look-up of kernels on the hub, all cores."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    _import_bitsandbytes()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)


def _import_bitsandbytes() -> None:
    """Import bitsandbytes without its look-up of a CPU kernel on the hub.

    The kernel serves only the packed weights that `keep_trainable` switches off.
    """
    if "bitsandbytes" in sys.modules:
        return
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    absent = object()
    before = sys.modules.get("kernels", absent)
    sys.modules["kernels"] = None  # type: ignore[assignment]  # makes `import kernels` fail at once
    try:
        import bitsandbytes  # noqa: F401
    finally:
        if before is absent:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = before  # type: ignore[assignment]


def choose_device(wanted: str) -> str:
    """`auto`, `cpu` or `cuda` -> the device; raises `TrainingError` where there is no GPU and one is asked for."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainingError("training.device is cuda, but there is no GPU here", fix="set training.device: auto")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def load_tokenizer(base: Base) -> Any:
    """The base's tokenizer with `template_arguments` in its template, padding on the left; raises `TrainingError`."""
    quiet()
    from transformers import AutoTokenizer

    with hub_errors(base):
        tokenizer = AutoTokenizer.from_pretrained(base.model, **origin(base))
    if isinstance(tokenizer.chat_template, dict):  # some bases have one for tools beside the plain one
        tokenizer.chat_template = tokenizer.chat_template.get("default")
    if not tokenizer.chat_template:
        raise TrainingError(
            "the base has no chat template, so there is no saying how a conversation is written for it",
            where=base.model,
            fix="take the instruction-tuned model of the family, or add a chat_template.jinja beside its tokenizer",
        )
    tokenizer.chat_template = with_arguments(tokenizer.chat_template, base.template_arguments)
    tokenizer.padding_side = "left"
    return tokenizer


def load_config(base: Base) -> Any:
    """The base's configuration, without its weights; raises `TrainingError`."""
    quiet()
    from transformers import AutoConfig

    with hub_errors(base):
        return AutoConfig.from_pretrained(base.model, **origin(base))


def load_stop_ids(base: Base, tokenizer: Any) -> tuple[int, ...]:
    """Ids of the tokens at which generation stops: the generation configuration's and the tokenizer's."""
    from transformers import GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(base.model, **origin(base)).eos_token_id
    except (OSError, ValueError):  # a model without such a file stops at what its configuration says
        found = load_config(base).eos_token_id
    return as_ids(found, tokenizer.eos_token_id)


def as_ids(*values: Any) -> tuple[int, ...]:
    """Token ids from what configurations hold (none, one, a list), in order and each once."""
    flat = [one for value in values for one in (value if isinstance(value, (list, tuple)) else [value])]
    return tuple(dict.fromkeys(int(one) for one in flat if one is not None))


def load_base(base: Base, quantization: Quantization, device: str = "auto") -> tuple[Any, Any]:
    """The base as the recipe quantises it, in eval mode, and its tokenizer. Raises `TrainingError`."""
    tokenizer = load_tokenizer(base)
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    place = choose_device(device)
    compute = getattr(torch, quantization.compute)
    four = None
    if quantization.bits == 4:
        four = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization.kind,
            bnb_4bit_use_double_quant=quantization.double,
            bnb_4bit_compute_dtype=compute,
            # FSDP shards floats alone: the 4-bit weights then lie in a float type, that of all the rest
            bnb_4bit_quant_storage=compute if is_sharded() else torch.uint8,
        )
    with hub_errors(base), memory_errors("the base does not fit"):
        model = AutoModelForCausalLM.from_pretrained(
            base.model,
            quantization_config=four,
            # what is not quantised (embeddings, norms) stays exact on a CPU, where half precision gains no speed
            dtype=compute if place == "cuda" or four is None else torch.float32,
            device_map={"": int(os.environ.get("LOCAL_RANK", "0")) if place == "cuda" else "cpu"},
            use_safetensors=True,
            **origin(base),
        )
    keep_trainable(model)
    model.generation_config = _greedy(
        model.generation_config, as_ids(model.config.eos_token_id, tokenizer.eos_token_id)
    )
    return model.eval(), tokenizer


def attach_lora(model: Any, lora: Lora, seed: int) -> Any:
    """A fresh LoRA adapter, its weights in float32, initialised from `seed`. Raises `TrainingError`."""
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    from train.memory import outside_decoder  # brings torch

    set_seed(seed)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        exclude_modules=outside_decoder(model, lora),
        task_type="CAUSAL_LM",
    )
    try:
        tuned = get_peft_model(model, config)
    except ValueError as error:
        head = model.get_output_embeddings()
        linear = (name for name, one in model.named_modules() if "Linear" in type(one).__name__ and one is not head)
        names = sorted({name.rpartition(".")[2] for name in linear})
        raise TrainingError(f"lora.targets: {error}", fix=f"name some of: {', '.join(names)}") from error
    adapter_to_float32(tuned)
    return tuned


def adapter_to_float32(model: Any) -> None:
    """Hold what is trained in float32: an update of AdamW is often too small for bfloat16 to show."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def load_tuned(run: Run, device: str = "auto") -> tuple[Any, Any]:
    """The base with a run's adapter at its scale, in eval mode, and the tokenizer.

    `with model.disable_adapter():` gives the base. Raises `TrainingError`, `WorkspaceError`.
    """
    recipe = run.recipe
    check_base(run)
    model, tokenizer = load_base(recipe.base, recipe.quantization, device)
    from peft import PeftModel

    tuned = PeftModel.from_pretrained(model, str(run.adapter), is_trainable=False)
    for parameter in (one for name, one in tuned.named_parameters() if "lora_" in name):
        parameter.data = parameter.data.float()
    set_scale(tuned, run.scale)
    return tuned.eval(), tokenizer


def set_scale(model: Any, scale: float) -> None:
    """Multiply the adapter's effect by `scale` for good."""
    from peft.tuners.lora.layer import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.scaling = {name: value * scale for name, value in module.scaling.items()}


def base_input(base: Base, directory: Path) -> Input:
    """What the base is, for a manifest in `directory`: a directory by its files, a hub model by its commit."""
    if base.is_directory:
        made = Path(base.model)
        exported = (made / NAME).is_file()  # by `train export`: a manifest names it, and verify walks on from there
        sha256 = read_manifest(made, "export").sha256 if exported else sha256_tree(made)
        return Input(path=os.path.relpath(made, directory), sha256=sha256)
    commit = getattr(load_config(base), "_commit_hash", None) or base.revision or "main"
    return Input(path=f"{base.model}@{commit}", sha256=sha256_text(f"{base.model}@{commit}"))


def check_base(run: Run) -> None:
    """Raise `WorkspaceError` where a run's base is gone or is not the one that was tuned."""
    named, base = run.manifest.inputs["base"], run.recipe.base
    if base.is_directory and base_input(base, run.directory).sha256 != named.sha256:
        raise WorkspaceError(
            "the base is not the one this run was trained on",
            where=base.model,
            fix=f"put back the base with sha256 {named.sha256[:12]}, or train again",
        )


def versions() -> dict[str, str]:
    """The versions of what decides the numbers."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "trl", "peft", "bitsandbytes", "tutelage")}


def _greedy(config: Any, stop: tuple[int, ...]) -> Any:
    """The generation configuration without sampling, stopping at all of the model's stop tokens."""
    config.do_sample, config.temperature, config.top_p, config.top_k = False, None, None, None
    config.eos_token_id = list(as_ids(config.eos_token_id, list(stop))) or None
    return config


def keep_trainable(model: Any) -> None:
    """On CPUs with AVX512-BF16, keep bitsandbytes from repacking 4-bit weights at the first evaluation.

    The packed kernel has no backward: training after an evaluation would go on without a gradient and without an error.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


@contextmanager
def memory_errors(what: str, advice: Callable[[], str] | None = None) -> Iterator[None]:
    """Turn running out of memory into an error that names what to lower; `advice` is asked for that only then."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not known and "not enough memory" not in str(error) and "CUDA out of memory" not in str(error):
            raise
        fix = advice() if advice else "free memory that others use, or take a smaller base or a larger device"
        raise TrainingError(f"out of memory: {what}", fix=fix) from error
