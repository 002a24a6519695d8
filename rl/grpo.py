"""GRPO: the policy writes G answers to each prompt; the rewarded ones become likelier.

accelerate launch rl/grpo.py model.path=outputs/warm_start/policy format=box data=scenes output_dir=outputs/grpo
accelerate launch rl/grpo.py ... rollouts=transformers        # without vLLM
accelerate launch rl/grpo.py ... resume=true                  # continue from the last whole checkpoint
"""

from __future__ import annotations

from omegaconf import DictConfig
from trl import GRPOConfig

import configs
from rl.trainer import SegGRPOTrainer
from rollouts.device import prepare_vllm, training_arguments, use_all_cores
from rollouts.engines import require_vllm
from rollouts.memory import report
from rollouts.policy import (
    check_tokens,
    family,
    freeze_vision,
    image_frame,
    image_token_ids,
    load_model,
    load_processor,
    restore,
)
from rollouts.rows import prompt_rows
from rollouts.sections import make_decoder, make_format, make_lora, make_rewards, make_training_samples
from sft.card import write_card
from sft.checkpoints import MarkWhole, resume_from
from sft.merge import finish
from sft.progress import show_progress


@configs.main("grpo")
def main(cfg: DictConfig) -> None:
    """Check everything that can be wrong, load the policy, train, merge, save."""
    use_all_cores()
    resume = resume_from(cfg.output_dir, cfg.resume)
    if cfg.rollouts.use_vllm:
        require_vllm()
        prepare_vllm()
    rewards, weights, paid = make_rewards(cfg.rewards)
    processor = load_processor(cfg.model.path, cfg.model.max_pixels)
    model_type = family(cfg.model.path)
    format = make_format(cfg.format, model_type, processor)
    check_tokens(processor, format.new_tokens, cfg.model.path)
    decoder = make_decoder(cfg.decoder)
    samples = make_training_samples(cfg.data)
    # A sampled image token would break the forward pass of training; only vLLM must be told (R1-V#91).
    banned = {"logit_bias": dict.fromkeys(image_token_ids(cfg.model.path), -100.0)}
    rollouts = configs.plain(cfg.rollouts)
    structured = rollouts.pop("structured", 0)
    arguments = configs.build(
        GRPOConfig,
        {**cfg.trainer, **rollouts},
        where="trainer",
        output_dir=cfg.output_dir,
        seed=cfg.seed,
        reward_weights=weights,
        vllm_structured_outputs_regex=format.regex(structured) if structured else None,
        generation_kwargs=banned if cfg.rollouts.use_vllm else None,
        **training_arguments(),
    )
    configs.record_run(cfg.output_dir, cfg, cfg.seed)
    report(cfg)

    model = restore(load_model(cfg.model.path, cfg.model.dtype), resume)
    trainer = SegGRPOTrainer(
        model=freeze_vision(model) if cfg.model.freeze_vision else model,
        args=arguments,
        train_dataset=prompt_rows(samples, format, image_frame(processor)),
        processing_class=processor,
        peft_config=make_lora(cfg.model.lora),
        callbacks=[MarkWhole()],
        format=format,
        rewards=rewards,
        paid=paid,
        decoder=decoder,
    )
    show_progress(trainer)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_state()  # trainer_state.json: every logged number
    finish(trainer, processor, samples, cfg.output_dir)
    write_card(cfg, format.prompt("the left cup"), f"{cfg.output_dir}/policy")


if __name__ == "__main__":
    main()
