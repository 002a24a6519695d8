"""gRefCOCO: expressions that mean one object, several, or none.

```
<root>/grefcoco/grefs(unc).json                 as refs(unc).p, but ann_id is a list, [-1] where nothing is meant
<root>/grefcoco/instances.json
<root>/images/mscoco/images/train2014/*.jpg
```

Files and rules are those of github.com/henghuiding/gRefCOCO and ReLA.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segmentation.data.expressions import Expressions
from segmentation.data.files import as_list, collector_at_rest, located, read_json, require
from segmentation.data.instances import Crowd, Instances
from segmentation.data.refer import COCO_IMAGES, in_split, ref_of
from segmentation.data.refs import Ref, Sentences, held_out, usable

LAYOUT = (
    "the layout of github.com/henghuiding/gRefCOCO: grefcoco/grefs(unc).json, grefcoco/instances.json and "
    f"{COCO_IMAGES}/*.jpg"
)


class GRefCOCO(Expressions):
    """One split of gRefCOCO. Images and masks are read when a sample is.

    Args:
        root: the folder with `grefcoco/` and `images/`.
        split: train, val, testA, testB, or test for both of these.
        sentences: `each`, `first` or `joined`, see `segmentation.data.refs.worded`.
        crowd: what annotations of crowds are; ReLA skips them.
        skip_refs: ids of refs to leave out, should the files hold some that cannot be used.

    Raises:
        ValueError: an empty split, a ref that both means something and does not, files that do not agree.
        FileNotFoundError: a file is not where the official layout has it.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "val",
        sentences: Sentences = "each",
        crowd: Crowd = "skip",
        skip_refs: Sequence[int] = (),
    ) -> None:
        refs_file, instances_file = (Path(root, "grefcoco", name) for name in ("grefs(unc).json", "instances.json"))
        require(root, [refs_file, instances_file], LAYOUT)
        everyone = []
        with collector_at_rest():
            for number, entry in enumerate(as_list(read_json(refs_file), str(refs_file))):
                with located(f"{refs_file}: ref number {number}"):
                    everyone.append(_ref(entry))
        refs = usable(in_split(everyone, split, refs_file), skip_refs, refs_file)
        instances = Instances(instances_file, Path(root, COCO_IMAGES), refs, crowd)
        super().__init__("grefcoco", "grefcoco-unc", refs, instances, sentences, held_out=held_out(everyone))


def _ref(entry: dict[str, Any]) -> Ref:
    ref = ref_of(entry)
    objects = tuple(dict.fromkeys(number for number in ref.annotations if number != -1))
    nothing = -1 in ref.annotations or bool(entry.get("no_target", False))
    if nothing == bool(objects):
        raise ValueError(
            f"ann_id {list(ref.annotations)} and no_target {entry.get('no_target', False)} of ref_id {ref.id} do not "
            f"go together: nothing is meant, or some objects are. Leave it out: data.skip_refs=[{ref.id}]."
        )
    return dataclasses.replace(ref, annotations=objects)
