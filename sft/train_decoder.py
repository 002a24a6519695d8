"""Trains a mask decoder on a warm-started policy, which stays as it is, or jointly with it.

accelerate launch sft/train_decoder.py model.path=outputs/warm_start/policy format=box decoder=box_guided data=scenes
accelerate launch sft/train_decoder.py model.path=outputs/warm_start/policy format=seg_token decoder=dsff loss=mllmseg \
    joint=true 'model.lora={r: 64, lora_alpha: 128}' trainer=decoder_released data=refcoco data.root=/data

output_dir/decoder is the last decoder and output_dir/best the best on validation; both load as `decoder=trained
decoder.path=...`. Joint training also writes their policies, merged: output_dir/policy goes with the last decoder,
output_dir/best/policy with the best.
"""

from __future__ import annotations

import configs

# Imports take seconds, the command line is checked before them.
command = configs.main("train_decoder", several=["data"], script=__name__)

from pathlib import Path

from omegaconf import DictConfig
from peft import PeftModel
from transformers import set_seed

from rollouts.device import use_all_cores
from rollouts.guards import check_precision, check_trained
from rollouts.policy import load_model
from rollouts.sections import make_processor, make_samples, make_training_samples
from segmentation.data.check import Opened
from sft.checkpoints import MarkWhole, resume_from
from sft.decoder_batches import DecoderBatches, WithTargets
from sft.decoder_setup import (
    check_format,
    make_arguments,
    make_cache,
    make_optimizer,
    new_decoder,
    rows_seen,
    trained_policy,
    training_boxes,
    validation_samples,
)
from sft.interrupts import SaveOnSignal
from sft.mask_model import MaskModel
from sft.mask_trainer import MaskTrainer
from sft.merge import merge, save_policy
from sft.progress import show_progress
from sft.view import Viewer


@command
def main(cfg: DictConfig) -> None:
    """Check config and data, make decoder and policy, train, save."""
    use_all_cores()
    resume = resume_from(cfg.output_dir, cfg.resume)
    arguments = make_arguments(cfg)
    if cfg.joint:
        check_trained(cfg.model)
    mask_loss = configs.instantiate(cfg.loss, where="loss")
    processor, format = make_processor(cfg)
    samples = make_training_samples(cfg.data)
    validation = validation_samples(make_samples(cfg.benchmark, "benchmark"), cfg.val_samples)

    set_seed(cfg.seed)
    interrupts = SaveOnSignal()
    model = load_model(cfg.model.path, cfg.model.dtype)
    check_precision(model, lora=not cfg.joint or cfg.model.lora is not None)
    decoder = new_decoder(cfg.decoder, model, processor)
    check_format(decoder, format, samples.samples)
    boxes, val_boxes = training_boxes(cfg, samples.samples, validation, format)
    viewer = Viewer(model, processor, decoder, format, text=cfg.joint)
    cache = make_cache(cfg, viewer, rows_seen(arguments, len(samples)) + len(validation))
    if not cfg.joint:  # what has no target has no mask; jointly it still teaches the text
        samples = Opened(WithTargets(samples.samples), cfg.data.on_error)
    configs.record_run(cfg.output_dir, cfg, cfg.seed)

    policy = trained_policy(cfg, model) if cfg.joint else None
    trainer = MaskTrainer(
        model=MaskModel(decoder, viewer, policy),
        args=arguments,
        batches=DecoderBatches(viewer, cache, boxes),
        train_dataset=samples,
        mask_loss=mask_loss,
        box_jitter=cfg.box_jitter,
        validation=validation,
        validation_batches=DecoderBatches(viewer, cache, val_boxes),
        optimizers=(make_optimizer(decoder, policy, arguments, cfg.policy_learning_rate), None),
        callbacks=[MarkWhole(), interrupts],
    )
    show_progress(trainer)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_state()  # trainer_state.json: every logged number
    interrupts.exit_if_told(cfg.output_dir)
    finish(trainer, samples, Path(cfg.output_dir))


def finish(trainer: MaskTrainer, samples: Opened, output_dir: Path) -> None:
    """Write the last decoder, and the policy where it was trained; say what was reached."""
    if samples.skipped:
        print(f"{len(samples.skipped)} samples had broken images and were replaced: {', '.join(samples.skipped)}")
    if trainer.accelerator.is_main_process:
        trained = trainer.mask_model
        trained.decoder.save_pretrained(output_dir / "decoder")
        print(f"decoder: {output_dir / 'decoder'}")
        if trained.policy is not None:
            print(f"its policy: {save_policy(trained.policy, trained.viewer.processor, output_dir / 'policy')}")
        if trainer.state.best_metric is not None:  # there was a validation
            best = output_dir / "best"
            print(f"best: {best}, validation IoU {trainer.state.best_metric:.4f}")
            if isinstance(trained.policy, PeftModel):
                merge(best / "adapter", best / "policy")
            if trained.policy is not None:
                print(f"its policy: {best / 'policy'}")
    trainer.accelerator.wait_for_everyone()


if __name__ == "__main__":
    main()
