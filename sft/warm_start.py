"""Supervised warm start: teaches a model to write a format. The output folder is a plain model for rl/grpo.py or vLLM.

accelerate launch sft/warm_start.py format=box data=scenes output_dir=outputs/warm_start
accelerate launch sft/warm_start.py model=qwen2_5_vl_3b trainer=sft_lora format=bricks data=refcoco data.root=/data
"""

from __future__ import annotations

import configs

# Imports take seconds, the command line is checked before them.
command = configs.main("warm_start", several=["data"], script=__name__)

from omegaconf import DictConfig
from trl import SFTConfig, SFTTrainer

from rollouts.device import training_arguments, use_all_cores
from rollouts.guards import check_launcher, check_precision, check_trained
from rollouts.memory import report
from rollouts.policy import (
    add_tokens,
    freeze_vision,
    image_frame,
    learn_in_float32,
    learn_new_rows_alone,
    load_model,
    new_rows,
    restore,
)
from rollouts.rows import answer_rows
from rollouts.sections import make_lora, make_processor, make_training_samples
from sft.card import write_card
from sft.checkpoints import MarkWhole, resume_from
from sft.interrupts import SaveOnSignal
from sft.merge import finish
from sft.progress import show_progress


@command
def main(cfg: DictConfig) -> None:
    """Check the data, load the model, add the format's tokens, train, merge, save."""
    use_all_cores()
    resume = resume_from(cfg.output_dir, cfg.resume)
    configs.build(check_launcher, {}, where="launch")
    check_trained(cfg.model)
    arguments = configs.build(
        SFTConfig,
        cfg.trainer,
        where="trainer",
        output_dir=cfg.output_dir,
        seed=cfg.seed,
        max_length=None,  # TRL's 1024 would cut image tokens
        remove_unused_columns=False,  # rows are made when read; there are no columns to remove
        **training_arguments(),
    )
    processor, format = make_processor(cfg, knows=False)
    samples = make_training_samples(cfg.data, in_words=True)
    configs.record_run(cfg.output_dir, cfg, cfg.seed)
    report(cfg)

    interrupts = SaveOnSignal()
    model = load_model(cfg.model.path, cfg.model.dtype)
    check_precision(model, lora=cfg.model.lora is not None)
    added = add_tokens(model, processor, format.new_tokens)
    model = restore(model, resume)
    trainer = SFTTrainer(
        model=freeze_vision(model) if cfg.model.freeze_vision else model,
        args=arguments,
        train_dataset=answer_rows(samples, format, image_frame(processor)),
        processing_class=processor,
        peft_config=make_lora(cfg.model.lora, **new_rows(added, model.config.tie_word_embeddings)),
        callbacks=[MarkWhole(), interrupts],
    )
    learn_in_float32(trainer.model)
    learn_new_rows_alone(trainer.model, len(processor.tokenizer), added)
    trainer.create_model_card = lambda *_, **__: None  # TRL's knows neither base nor format: `sft.card` writes one
    show_progress(trainer)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_state()  # trainer_state.json: every logged number
    interrupts.exit_if_told(cfg.output_dir)
    finish(trainer, processor, samples, cfg.output_dir)
    write_card(cfg, format.prompt("the left cup"), f"{cfg.output_dir}/policy")


if __name__ == "__main__":
    main()
