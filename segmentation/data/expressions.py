"""`Expressions`: Samples of refs about the instances of a COCO-style file. Every dataset of that layout is one."""

from __future__ import annotations

from collections.abc import Sequence

from segmentation import masks
from segmentation.data.instances import Instances
from segmentation.data.refs import Ref, Sentences, worded
from segmentation.data.samples import Samples
from segmentation.sample import Sample, Target


class Expressions(Samples):
    """Samples of some refs: one a sentence, one a ref of its first sentence, or one with all sentences joined by "; ".

    Ids are `<prefix>-<the ref's own split>-<ref id>-<sentence id>` (joined: without the last), the same whichever split
    was asked for.

    Args:
        dataset: name for the samples.
        prefix: of their ids.
        refs: what is referred to.
        instances: the file that has their objects.
        sentences: `each`, `first` or `joined`.
        of_coco: whether image ids are COCO's, so that other datasets may have the same image.
        held_out: COCO ids of all images of the files' splits for validation and test.
        resized: see Sample.
    """

    def __init__(
        self,
        dataset: str,
        prefix: str,
        refs: Sequence[Ref],
        instances: Instances,
        sentences: Sentences,
        of_coco: bool = True,
        held_out: frozenset[int] = frozenset(),
        resized: bool = False,
    ) -> None:
        self.dataset, self.prefix, self.instances = dataset, prefix, instances
        self.of_coco, self.resized = of_coco, resized
        self.held_out = held_out if of_coco else frozenset()
        self._rows = [(ref, ending, text) for ref in refs for ending, text in worded(ref.sentences, sentences)]
        self._last: tuple[Ref, tuple[Target, ...], masks.RLE | None] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def image_id(self, index: int) -> int | None:
        """COCO id of the image of a row."""
        return self._rows[index][0].image if self.of_coco else None

    def sample(self, index: int) -> Sample:
        """The sample of a row; its masks are read now, its picture later."""
        ref, ending, text = self._rows[index]
        if not (self._last and self._last[0] is ref):  # a ref's sentences follow each other: its masks are made once
            self._last = ref, self.instances.targets(ref), self.instances.ignored(ref)
        picture = self.instances.picture(ref)
        return Sample(
            id=f"{self.prefix}-{ref.split}-{ref.id}{ending}",
            image=picture.path,
            height=picture.height,
            width=picture.width,
            expression=text,
            targets=self._last[1],
            ignore=self._last[2],
            image_id=self.image_id(index),
            dataset=self.dataset,
            split=ref.split,
            resized=self.resized,
        )
