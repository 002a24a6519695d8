"""The order of training: every sample once a pass, a fixed share without target, and a place to go on from."""

from collections import Counter
from dataclasses import replace

import pytest
from trl.trainer.utils import RepeatSampler

from segmentation.data.order import Order
from segmentation.data.scenes import Scenes
from segmentation.sample import BrokenImage


@pytest.fixture(scope="module")
def scenes():
    """40 samples, 10 without a target."""
    drawn = Scenes("val", 1000, kinds={"attribute": 0.7, "none": 0.3})
    some = drawn[:80]
    with_, without = [s for s in some if s.targets][:30], [s for s in some if not s.targets][:10]
    return [replace(sample, id=str(i)) for i, sample in enumerate([*with_, *without])]


def ids(samples, order, count):
    return [samples[i] for i in order.take(order.kinds(count))]


def test_without_a_ratio_it_is_the_order_of_trl(scenes):
    sampler = RepeatSampler(scenes, mini_repeat_count=1, seed=3)
    expected = [*sampler, *sampler]
    order = Order(scenes, seed=3)
    assert order.take(order.kinds(80)) == expected
    assert order.take(order.kinds(40)) != expected[:40]


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.25, 0.3, 0.5, 0.77, 1.0])
def test_any_samples_in_a_row_have_their_share_without_target(scenes, ratio):
    row = [not sample.targets for sample in ids(scenes, Order(scenes, no_target_ratio=ratio), 240)]
    for length in (1, 7, 8, 20, 64):
        shares = {sum(row[start : start + length]) for start in range(len(row) - length)}
        assert shares <= {int(length * ratio), int(length * ratio) + 1}
    for start in range(0, 240, 20):
        assert sum(row[start : start + 20]) == pytest.approx(20 * ratio, abs=0.999)
    if ratio * 20 == int(ratio * 20):
        assert {sum(row[start : start + 20]) for start in range(0, 240, 20)} == {ratio * 20}


def test_nothing_comes_twice_before_all_of_its_kind_came_once(scenes):
    order = Order(scenes, no_target_ratio=0.5)
    first = ids(scenes, order, 20)  # all ten without a target
    assert max(Counter(sample.id for sample in first).values()) == 1
    rest = ids(scenes, order, 40)
    counts = Counter(sample.id for sample in [*first, *rest])
    assert {counts[sample.id] for sample in scenes if sample.targets} == {1}  # none was dropped
    assert {counts[sample.id] for sample in scenes if not sample.targets} == {3}


@pytest.mark.parametrize("ratio", [None, 0.4])
def test_it_goes_on_from_a_state_as_if_it_had_not_stopped(scenes, ratio):
    whole, order = Order(scenes, 1, ratio), Order(scenes, 1, ratio)
    expected = [whole.take(whole.kinds(12)) for _ in range(10)]
    for step in range(10):
        assert order.take(order.kinds(12)) == expected[step]
        state, order = order.state(), Order(scenes, 1, ratio)
        order.restore(state)


def test_more_of_a_kind_do_not_change_the_share_of_what_follows(scenes):
    order = Order(scenes, no_target_ratio=0.25)
    order.kinds(6)
    assert {scenes[i].targets for i in order.take([True] * 5)} == {()}
    kinds = order.kinds(8)
    assert sum(map(bool, kinds)) == 2


def test_a_dataset_without_end_is_made_only_as_far_as_it_is_dealt():
    class Counted(Scenes):
        made = 0

        def sample(self, index):
            Counted.made += 1
            return super().sample(index)

    order = Order(Counted(length=1_000_000), no_target_ratio=0.5)
    order.take(order.kinds(16))
    assert Counted.made < 200


def test_a_sample_that_its_broken_image_makes_impossible_is_of_neither_kind():
    class Broken(Scenes):
        def sample(self, index):
            if index % 5 == 0:
                raise BrokenImage(f"{index}.jpg: no such file")
            return super().sample(index)

    broken = Broken(length=40)
    order = Order(broken, no_target_ratio=0.5, on_error="skip")
    assert all(index % 5 for index in order.take(order.kinds(60)))
    with pytest.raises(BrokenImage):
        order = Order(broken, no_target_ratio=0.5)
        order.take(order.kinds(60))


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_ratio_that_cannot_be_held_is_said_at_once(scenes, shuffle):
    targeted = [sample for sample in scenes if sample.targets]
    with pytest.raises(ValueError, match="no samples without a target"):
        Order(targeted, no_target_ratio=0.2, shuffle=shuffle)
    Order(targeted, no_target_ratio=0.0)
    with pytest.raises(ValueError, match=r"data\.no_target_ratio=1\.2: it is a share"):
        Order(scenes, no_target_ratio=1.2)
    with pytest.raises(ValueError, match="resume with the one before"):
        Order(scenes).restore(Order(scenes, no_target_ratio=0.5).state())
