"""TRL's SFTTrainer under guard: loss on answers only, KL to the base, a retention budget, exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PrinterCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from curate.errors import TrainingError
from train.adapter import save_gathered
from train.checkpoints import seal
from train.guards import (
    EVALUATED,
    Example,
    Measured,
    base_of,
    causal_model,
    collate,
    head_logits,
    kl_sum,
    measure,
    pooled,
)
from train.log import Event
from train.memory import is_checkpointing
from train.model import adapter_to_float32
from train.order import total_steps, training_order
from train.processes import check_processes, count, everyones, from_main, is_sharded, rank
from train.recipe import Recipe
from train.rendering import pad_of


@dataclass(frozen=True)
class Data:
    """Everything that is learned from or measured on, as token ids."""

    train: list[Example]  # pairs and rehearsal
    validation: list[Example]  # pairs
    retention: list[Example]  # held-out general items with their answers


@dataclass
class Watch:
    """What evaluation during training found: the base's losses, and why training ended early, if it did."""

    base: dict[str, float] = field(default_factory=dict)
    stopped: dict[str, float | None] | None = None


class GuardedTrainer(SFTTrainer):
    """SFTTrainer on rows that are already token ids, so that TRL neither cuts nor tokenises anything.

    Evaluations measure the loss on validation pairs and retention items, and on both how far the model has moved from
    its base (KL), exactly: nats per answer token, not a mean of batch means. When retention's loss rises above the
    budget, training stops there and no checkpoint is taken.
    """

    def __init__(
        self, model: Any, tokenizer: Any, recipe: Recipe, data: Data, output: Path, tell: Callable[[Event], None]
    ):
        self.recipe, self.data, self.tell = recipe, data, tell
        self.watch = Watch()
        self.pad = pad_of(tokenizer)
        self.kl = recipe.guards.kl_to_base
        self._kl_tokens = 0
        self._hidden: Tensor | None = None
        self._base_states: tuple[list[Tensor], list[Tensor]] = ([], [])  # of validation and retention
        self._started = time.monotonic()
        rows = [
            {
                "ids": list(one.ids),
                "prompt_tokens": one.prompt_tokens,
                "rehearsal": one.rehearsal,
                "masked": list(one.masked),
            }
            for one in data.train
        ]
        super().__init__(
            model=model,
            args=training_arguments(recipe, len(data.train), output, model.device.type),
            train_dataset=Dataset.from_list([{**row, "input_ids": row["ids"]} for row in rows]),
            eval_dataset=Dataset.from_list([{"input_ids": list(one.ids)} for one in data.validation[:1]]),
            processing_class=tokenizer,
            data_collator=self._collate,
        )
        self.model_accepts_loss_kwargs = True  # the loss is divided by the tokens of the whole batch, for any model
        adapter_to_float32(self.model)  # TRL has just made it bfloat16
        self.remove_callback(PrinterCallback)
        if count() > 1:
            torch.manual_seed(recipe.training.seed + rank())  # dropout of its own in every process
        if self.kl:
            causal_model(self.model).base_model.register_forward_hook(self._keep_hidden)

    def _collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        examples = [Example(tuple(r["ids"]), r["prompt_tokens"], r["rehearsal"], tuple(r["masked"])) for r in rows]
        return collate(examples, self.pad)

    def _keep_hidden(self, module: Any, inputs: Any, output: Any) -> None:
        if module.training:
            self._hidden = output[0]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        lengths = [len(one.ids) for one in self.data.train]
        rehearsal = [one.rehearsal for one in self.data.train]
        training = self.recipe.training
        return training_order(lengths, rehearsal, self.args.max_steps, training.batch, training.seed)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> Any:
        """The micro-batches of a step; counts, beside their answer tokens, those on which the KL stands."""
        batches, tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.kl:
            self._kl_tokens = sum(everyones(sum(int(self._kl_places(batch).sum()) for batch in batches)))
        return batches, tokens

    def _kl_places(self, batch: dict[str, Tensor]) -> Tensor:
        """Where the KL stands: [rows, length - 1], the positions that predict an answer token."""
        places = batch["labels"][:, 1:] != -100
        if self.kl and self.kl.on == "rehearsal":
            places = places & batch["rehearsal"].to(places.device)[:, None]
        return places

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean loss per answer token of the step, plus weight x mean KL(base || tuned) per token it stands on.

        The tuned side of the KL comes from the forward pass of the loss itself; the base side costs one more forward
        without gradient, over the rows concerned alone.
        """
        places = self._kl_places(inputs) if self.kl else None
        inputs = {key: value for key, value in inputs.items() if key != "rehearsal"}
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        loss = super().compute_loss(  # type: ignore[no-untyped-call]
            model, inputs, return_outputs=False, num_items_in_batch=num_items_in_batch
        )
        if places is None or self.kl is None:
            return loss
        hidden, self._hidden = self._hidden, None
        rows = places.any(dim=1)
        if hidden is None or not rows.any():
            return loss
        kl = self._divergence(hidden[rows], (ids[rows], mask[rows]), places[rows]) / max(self._kl_tokens, 1)
        kl = kl * count()  # of several processes the gradients are averaged, the tokens counted together
        self._kl_seen = self._kl_seen + kl.item()
        return loss + self.kl.weight * kl

    def _divergence(self, hidden: Tensor, rows: tuple[Tensor, Tensor], places: Tensor) -> Tensor:
        width = int(rows[1].sum(dim=1).max())  # rows that were padded for longer ones need no more than this
        ids, mask, places = rows[0][:, :width], rows[1][:, :width], places[:, : width - 1]
        causal = causal_model(self.model)
        with torch.no_grad(), base_of(self.model):
            base = causal.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0][:, :-1]
            reference = head_logits(causal, base[places])
        self._hidden = None  # the hook has seen the base's
        return kl_sum(reference, head_logits(causal, hidden[:, : width - 1][places]))

    _kl_seen = 0.0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Tell the log of a step; what TRL adds for its own pages stays with the trackers."""
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise TrainingError(
                    f"the loss is no number any more at step {self.state.global_step}",
                    fix="lower training.learning_rate, or set quantization.compute: bfloat16 (or float32)",
                )
            kl, self._kl_seen = sum(everyones(self._kl_seen)) / count(), 0.0
            step = self.state.global_step
            event: Event = {"event": "step", "step": step, "loss": logs["loss"]}
            if self.kl:
                event["kl"] = kl
                event["task_loss"] = logs["loss"] - self.kl.weight * kl
            event |= {key: logs[key] for key in ("grad_norm", "learning_rate") if key in logs}
            self.tell({**event, "seconds": round(time.monotonic() - self._started, 3)})
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure validation and retention; stop where retention has risen above the budget."""
        task = self._measure(self.data.validation, self._base_states[0])
        kept = self._measure(self.data.retention, self._base_states[1])
        event: Event = {"event": "evaluation", "step": self.state.global_step, **_losses(task, kept)}
        if kept:
            event["retention_rise"] = kept.loss - self.watch.base["retention_loss"]
        self.tell(event)
        budget = self.recipe.guards.retention_budget
        if budget and kept and not event["retention_rise"] <= budget.loss_rise:  # a NaN is over the budget too
            rise = event["retention_rise"]
            self.watch.stopped = {"step": event["step"], "retention_rise": rise if math.isfinite(rise) else None}
            self.control.should_training_stop, self.control.should_save = True, False
        metrics = {f"eval_{key}": value for key, value in event.items() if key not in ("event", "step")}
        causal_model(self.model).eval()  # TRL takes the mode to tell which numbers these are
        super().log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def measure_base(self) -> None:
        """Note the base's own losses, against which retention is held."""
        with base_of(self.model):
            task = self._measure(self.data.validation, self._base_states[0], with_kl=False)
            kept = self._measure(self.data.retention, self._base_states[1], with_kl=False)
        self.watch.base = _losses(task, kept)

    def _measure(self, rows: list[Example], base: list[Tensor], with_kl: bool = True) -> Measured | None:
        """The loss, and the KL to the base, whose states are kept (see `measure`).

        Each process measures its part of the rows; of a sharded model all must take part in every forward pass.
        """
        if not rows:
            return None
        part = rows if is_sharded() else rows[rank() :: count()]
        model = self.model_wrapped if is_sharded() else self.model
        batch = self.recipe.training.micro_batch * EVALUATED
        return pooled(everyones(measure(model, part, self.pad, batch, with_kl, base)))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if is_sharded() and self.args.should_save:
            save_gathered(state_dict or {}, Path(output_dir or str(self.args.output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Put a checkpoint's weights into the model; a sharded one has got them before it was cut into pieces."""
        if not is_sharded():
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[no-untyped-call]
        everyones(None)  # each process has written its part
        from_main(lambda: seal(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"))

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: the manifest says more, and the card would name the author's machine."""


def _losses(task: Measured | None, kept: Measured | None) -> dict[str, float]:
    found: dict[str, float] = {}
    if task:
        found["task_loss"] = task.loss
        if task.kl is not None:
            found["task_kl"] = task.kl
    if kept:
        found["retention_loss"] = kept.loss
        if kept.kl is not None:
            found["kl"] = kept.kl
    return found


def training_arguments(recipe: Recipe, rows: int, output: Path, device: str) -> Any:
    """The recipe in TRL's words."""
    training, budget = recipe.training, recipe.guards.retention_budget
    steps = total_steps(rows, training.epochs, training.batch)
    every = budget.every if budget else 50
    check_processes(recipe)
    arguments = SFTConfig(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=training.micro_batch,
        gradient_accumulation_steps=training.batch // (training.micro_batch * count()),
        ddp_find_unused_parameters=False,
        learning_rate=training.learning_rate,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(training.schedule, training.schedule),
        warmup_steps=int(training.warmup * steps),
        weight_decay=training.weight_decay,
        max_grad_norm=training.gradient_clip,
        optim="adamw_torch",
        gradient_checkpointing=is_checkpointing(recipe, device),
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        bf16=recipe.quantization.compute == "bfloat16",
        fp16=recipe.quantization.compute == "float16",
        use_cpu=device == "cpu",
        dataloader_pin_memory=False,
        seed=training.seed,
        data_seed=training.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        report_to=list(training.report_to) or "none",
        disable_tqdm=True,
        log_level="error",
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # the model lies on one device
    return arguments
