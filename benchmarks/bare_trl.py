"""QLoRA with TRL and PEFT alone, as a good engineer writes it: what `training.py` measures ours against."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Spent = dict[str, float]


def timed(run: Callable[[], Any]) -> Spent:
    """Run it; its seconds, on the wall and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return {"seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - processor}


def train_bare(
    base: str, recipe: dict[str, Any], rows: dict[str, list[Row]], output: Path
) -> tuple[Spent, list[float]]:
    """Train as a good engineer does with TRL and PEFT alone: what it took, and the loss of every step."""
    import bitsandbytes  # noqa: F401
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, set_seed
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    lora, training, every = recipe["lora"], recipe["training"], recipe["guards"]["retention_budget"]["every"]
    steps = len(rows["train"]) // training["batch"]
    model = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=torch.float32,
        device_map={"": "cpu"},
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
    )
    set_seed(training["seed"])
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(output),
            max_steps=steps,
            per_device_train_batch_size=training["micro_batch"],
            per_device_eval_batch_size=training["micro_batch"] * 4,
            gradient_accumulation_steps=training["batch"] // training["micro_batch"],
            learning_rate=training["learning_rate"],
            lr_scheduler_type="cosine",
            warmup_steps=int(training["warmup"] * steps),
            optim="adamw_torch",
            max_length=None,
            completion_only_loss=True,
            train_sampling_strategy="sequential",
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            seed=training["seed"],
            logging_steps=1,
            eval_strategy="steps",
            eval_steps=every,
            save_strategy="steps",
            save_steps=every,
            save_total_limit=2,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows["train"]),
        eval_dataset={name: Dataset.from_list(found) for name, found in rows.items() if name != "train"},
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=LoraConfig(
            r=lora["rank"], lora_alpha=lora["alpha"], lora_dropout=lora["dropout"], target_modules="all-linear"
        ),
    )
    assert trainer.model is not None
    for parameter in trainer.model.parameters():  # TRL makes it bfloat16; ours trains it in float32, so both do
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    spent = timed(trainer.train)
    return spent, [one["loss"] for one in trainer.state.log_history if "loss" in one]
