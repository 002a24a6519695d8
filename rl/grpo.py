"""GRPO: the policy writes G answers to each prompt; the rewarded ones become likelier.

accelerate launch rl/grpo.py model.path=outputs/warm_start/policy format=box data=scenes output_dir=outputs/grpo
accelerate launch rl/grpo.py ... rollouts=transformers        # without vLLM
accelerate launch rl/grpo.py ... algorithm=dapo               # or another of configs/algorithm
accelerate launch rl/grpo.py ... resume=true                  # continue from the last whole checkpoint
accelerate launch rl/grpo.py ... benchmark=scenes_val         # validate during training, and keep the best checkpoint

output_dir/policy is the last policy and output_dir/best the best on validation. Ctrl-C and SIGTERM save a checkpoint
after the step and exit with 130 and 143; a number that is not finite saves the state before its step.
"""

from __future__ import annotations

import configs

# Imports take seconds, the command line is checked before them.
command = configs.main("grpo", several=["data"], script=__name__)

from omegaconf import DictConfig
from trl import GRPOConfig

from rl.boundaries import AtGenerationEnd
from rl.credit import pays_parts
from rl.dynamic_sampling import check_rounds
from rl.finite import NotFinite
from rl.trainer import SegGRPOTrainer
from rl.validation import make_validation, save_best
from rollouts.deadline import EngineDied
from rollouts.device import prepare_deepspeed, prepare_vllm, training_arguments, use_all_cores
from rollouts.engines import require_vllm
from rollouts.guards import check_launcher, check_precision, check_rollouts, check_trained
from rollouts.memory import report
from rollouts.policy import (
    freeze_vision,
    image_frame,
    image_token_ids,
    load_model,
    restore,
)
from rollouts.rows import prompt_rows
from rollouts.sections import make_decoder, make_lora, make_order, make_processor, make_rewards, make_training_samples
from sft.card import write_card
from sft.checkpoints import MarkWhole, resume_from, save_now
from sft.interrupts import SaveOnSignal
from sft.merge import finish
from sft.progress import show_progress


@command
def main(cfg: DictConfig) -> None:
    """Check everything that can be wrong, load the policy, train, merge, save."""
    use_all_cores()
    prepare_deepspeed()
    resume = resume_from(cfg.output_dir, cfg.resume)
    if cfg.rollouts.use_vllm:
        require_vllm()
        prepare_vllm()
    if "num_generations" not in cfg.trainer:
        raise configs.ConfigError("trainer: has no num_generations, so its fields are another trainer's: trainer=grpo.")
    rewards, weights, paid = make_rewards(cfg.rewards)
    processor, format = make_processor(cfg)
    decoder = make_decoder(cfg.decoder)
    samples = make_training_samples(cfg.data, ordered=True)
    validation = make_validation(cfg, format, processor)
    # A sampled image token would break the forward pass of training; only vLLM must be told (R1-V#91).
    banned = {"logit_bias": dict.fromkeys(image_token_ids(cfg.model.path), -100.0)}
    settings, rollouts = configs.plain(cfg.trainer), configs.plain(cfg.rollouts)
    generation = {**(settings.pop("generation_kwargs", None) or {}), **(banned if cfg.rollouts.use_vllm else {})}
    structured, time_limit = rollouts.pop("structured", 0), rollouts.pop("time_limit", 0.0)
    arguments = configs.build(
        GRPOConfig,
        {**settings, **rollouts},
        where="trainer",
        output_dir=cfg.output_dir,
        seed=cfg.seed,
        reward_weights=weights,
        vllm_structured_outputs_regex=format.regex(structured) if structured else None,
        generation_kwargs=generation or None,
        **training_arguments(),
        **(validation.arguments(first=resume is None) if validation else {}),
    )
    configs.build(
        pays_parts,
        {},
        where="rewards",
        paid=paid,
        masks=format.mask_tags is not None,
        scale=arguments.scale_rewards,
        aggregation=arguments.multi_objective_aggregation,
        level=arguments.importance_sampling_level,
    )
    rounds = configs.build(check_rounds, cfg.dynamic_sampling, where="dynamic_sampling", args=arguments)
    order = make_order(cfg.data, samples, cfg.seed, bool(arguments.shuffle_dataset))
    configs.build(check_launcher, {}, where="launch")
    check_trained(cfg.model)
    frozen = cfg.model.freeze_vision
    configs.build(check_rollouts, {}, where="rollouts", args=arguments, freeze_vision=frozen)
    configs.record_run(cfg.output_dir, cfg, cfg.seed)
    report(cfg)

    interrupts = SaveOnSignal()
    model = restore(load_model(cfg.model.path, cfg.model.dtype), resume)
    check_precision(model, lora=cfg.model.lora is not None)
    trainer = SegGRPOTrainer(
        model=freeze_vision(model) if frozen else model,
        args=arguments,
        train_dataset=prompt_rows(samples, format, image_frame(processor)),
        processing_class=processor,
        peft_config=make_lora(cfg.model.lora),
        callbacks=[MarkWhole(), interrupts],
        validation=validation,
        time_limit=time_limit,
        format=format,
        rewards=rewards,
        paid=paid,
        decoder=decoder,
        order=order,
        resample=rounds,
    )
    trainer.add_callback(AtGenerationEnd(trainer))
    show_progress(trainer)
    try:
        trainer.train(resume_from_checkpoint=resume)
    except (NotFinite, EngineDied) as error:
        raise type(error)(f"{error} {save_now(trainer, everywhere=isinstance(error, NotFinite))}") from error
    trainer.save_state()  # trainer_state.json: every logged number
    interrupts.exit_if_told(cfg.output_dir)
    save_best(trainer, processor, cfg.output_dir)
    finish(trainer, processor, samples, cfg.output_dir)
    for folder in ("policy", "best"):
        write_card(cfg, format.prompt("the left cup"), f"{cfg.output_dir}/{folder}")


if __name__ == "__main__":
    main()
