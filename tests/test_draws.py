"""A completion depends on its row's seed alone: not on the other rows, and not on how many processes share them."""

import pytest
import torch

from rollouts.draws import Draws, _OwnNumbers, rows_draw_alone
from rollouts.policy import image_frame, load_model, load_processor
from rollouts.rows import chat, picture
from segmentation.data.scenes import Scenes
from tests.runs import BASE


@pytest.fixture(scope="module")
def policy():
    return load_model(BASE, "float32").eval(), load_processor(BASE)


def _written(policy, samples, seeds=None, **how):
    """The tokens of each sample's completion, without what pads them."""
    model, processor = policy
    texts = processor.apply_chat_template(
        [chat(f"where is the {s.expression}?") for s in samples], tokenize=False, add_generation_prompt=True
    )
    images = [picture(s, image_frame(processor)) for s in samples]
    inputs = processor(images=images, text=texts, padding=True, padding_side="left", return_tensors="pt")
    start = inputs["input_ids"].shape[1]
    if seeds is None:
        out = model.generate(**inputs, max_new_tokens=12, **how)
    else:
        with rows_draw_alone(model, seeds):
            out = model.generate(**inputs, max_new_tokens=12, **how)
    pad = processor.tokenizer.pad_token_id
    return [[token for token in row if token != pad] for row in out[:, start:].tolist()]


def test_rows_are_drawn_as_if_they_were_alone(policy):
    samples = Scenes("val", 4)[:]
    sampled = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
    together = _written(policy, samples, range(7, 11), **sampled)
    torch.manual_seed(1)  # another process has another state
    apart = _written(policy, samples[:2], range(7, 9), **sampled) + _written(policy, samples[2:], [9, 10], **sampled)
    assert together == apart
    assert together != _written(policy, samples, range(8, 12), **sampled)
    assert "_get_logits_processor" not in vars(policy[0])


def test_greedy_stays_greedy(policy):
    samples = Scenes("val", 2)[:]
    assert _written(policy, samples, [0, 1], do_sample=False) == _written(policy, samples, do_sample=False)


def test_tokens_are_drawn_as_often_as_they_are_likely():
    likely = torch.tensor([0.0, 0.5, 0.3, 0.0, 0.15, 0.05, 0.0])
    count = 4000
    draw = _OwnNumbers(range(count))
    for step in range(_OwnNumbers.BLOCK + 2):
        left = draw(torch.zeros(count, 1), likely.log().expand(count, len(likely)))
        assert ((left == 0).sum(1) == 1).all() and (left <= 0).all()
        share = (left == 0).float().mean(0)
        torch.testing.assert_close(share, likely, atol=0.035, rtol=0.0, msg=f"token {step}")
        assert not share[likely == 0].any()


def test_seeds_are_those_of_the_step_whatever_was_drawn_before():
    long, resumed, other = Draws(3), Draws(3), Draws(4)
    first = [long.next(0, True), long.next(1, True), long.next(1, True), long.next(1, False), long.next(2, True)]
    assert len(set(first)) == 5
    assert resumed.next(2, True) == first[-1] != other.next(2, True)
    assert all(0 <= seed < 2**62 for seed in first)
