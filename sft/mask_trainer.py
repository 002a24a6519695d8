"""The one subclass of transformers' Trainer for masks: its loss, its validation, what its checkpoints hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import Trainer

from segmentation.sample import Sample
from sft.decoder_batches import DecoderBatches
from sft.decoder_boxes import jitter
from sft.mask_loss import MaskLoss, mask_iou
from sft.mask_model import MaskModel
from sft.view import View


class MaskTrainer(Trainer):
    """Trains a `MaskModel`.

    A checkpoint is what `MaskModel.save` writes, beside the trainer's own files. `output_dir/best` is the decoder of
    the best validation so far; if the policy is trained, too, the one of then is in `output_dir/best/policy`, of LoRA
    the adapter alone in `output_dir/best/adapter`.

    Args:
        model: decoder alone or with policy.
        batches: collates training samples.
        mask_loss: of the decoder, and of the text in joint training.
        box_jitter: see `decoder_boxes.jitter`; in training only.
        validation: samples with targets, collated by `validation_batches`.
        kwargs: of the Trainer.
    """

    def __init__(
        self,
        model: MaskModel,
        batches: DecoderBatches,
        mask_loss: MaskLoss,
        box_jitter: float,
        validation: Sequence[Sample],
        validation_batches: DecoderBatches,
        **kwargs: Any,
    ) -> None:
        evaluated: Any = validation  # its length is asked for, no more: `evaluate` reads it itself
        super().__init__(model=model, data_collator=batches, eval_dataset=evaluated, **kwargs)
        self.mask_model, self.batches, self.mask_loss, self.box_jitter = model, batches, mask_loss, box_jitter
        self.validation, self.validation_batches = validation, validation_batches
        self._parts: dict[str, list[Tensor]] = {}
        if model.policy is None:
            model.viewer.model.to(self.args.device).eval()

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The weighted sum; its parts go to the log."""
        found = self._decode(model, inputs, jitter(inputs["boxes"], self.box_jitter))
        parts = self.mask_loss(found["logits"], inputs["masks"], found["iou"], found["auxiliary"], found["text"])
        loss = parts.pop("loss")
        for name, part in parts.items():
            self._parts.setdefault(name, []).append(part.detach())
        return (loss, found) if return_outputs else loss

    def _decode(self, model: nn.Module, batch: dict[str, Any], boxes: Tensor) -> dict[str, Any]:
        if self.mask_model.policy is not None:
            return model(batch["owner"], boxes, inputs=batch["inputs"])
        return model(batch["owner"], boxes, views=self._views(batch))

    def _views(self, batch: dict[str, Any]) -> list[View]:
        """Of each row: from the cache, or by the policy, and then into the cache."""
        views = batch["views"]
        seen = self.mask_model.viewer.look(batch["inputs"]) if batch["todo"] else []
        for row, view in zip(batch["todo"], seen, strict=True):
            views[row] = view
            if self.batches.cache is not None:
                self.batches.cache.write(batch["keys"][row], view)
        return [view.to(self.args.device) for view in views]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With the loss go its parts, as this process saw them since the last time."""
        if "loss" in logs:
            logs |= {name: float(torch.stack(values).mean()) for name, values in self._parts.items()}
            self._parts.clear()
        super().log(logs, start_time)

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """`eval_miou`: mean IoU of the validation samples' objects at their pictures' own sizes, none counted twice."""
        model = self.mask_model.eval()
        mine = range(self.args.process_index, len(self.validation), self.args.world_size)
        size = self.args.eval_batch_size
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)  # of IoU, of objects
        for first in range(0, len(mine), size):
            samples = [self.validation[index] for index in mine[first : first + size]]
            batch = self._prepare_inputs(self.validation_batches(samples))  # type: ignore[arg-type]
            found = self._decode(model, batch, batch["boxes"])
            reached = mask_iou(found["logits"], batch["masks"])
            sums += torch.tensor([float(reached.sum()), len(reached)], dtype=torch.float64, device=sums.device)
        total, count = self.accelerator.reduce(sums, "sum").tolist()  # type: ignore[union-attr]
        metrics = {f"{metric_key_prefix}_miou": total / count}
        best = self.state.best_metric
        if self.args.should_save and (best is None or metrics[f"{metric_key_prefix}_miou"] > best):
            self._save_best()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_best(self) -> None:
        assert self.args.output_dir is not None
        best = Path(self.args.output_dir) / "best"
        self.mask_model.decoder.save_pretrained(best)
        policy = self.mask_model.policy
        if policy is not None:
            folder = str(best / ("adapter" if isinstance(policy, PeftModel) else "policy"))
            policy.save_pretrained(folder)
            self.mask_model.viewer.processor.save_pretrained(folder)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        self.mask_model.save(output_dir or self.args.output_dir or "")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.mask_model.load(resume_from_checkpoint)
