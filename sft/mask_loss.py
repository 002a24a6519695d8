"""What a mask decoder is trained on: cross-entropy, focal and Dice losses of mask logits, with the papers' weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss


@dataclass(frozen=True, slots=True)
class MaskLoss:
    """Weighted sum of per-mask losses. Weight 0: not computed.

    Args:
        bce: weight of the binary cross-entropy, mean over pixels (SELF1E: 2).
        dice: weight of the Dice loss (SELF1E: 0.5).
        focal: weight of the focal loss, alpha 0.25, gamma 2 (MLLMSeg's code has it in place of the BCE of its paper).
        iou: weight of the squared error of the predicted IoU, for decoders that predict one.
        auxiliary: weight of the same losses on a decoder's auxiliary logits.
        text: weight of the text's cross-entropy, in joint training.
        smooth: added to both sides of the Dice fraction (MLLMSeg: 1; LISA and SELF1E: 1e-6).
        dice_scale: both sides of the Dice fraction are divided by it before `smooth` is added, which makes that count
            for more (LISA and SELF1E: 1000).
        focal_of_probabilities: as published by MLLMSeg: the cross-entropy inside the focal loss is given probabilities
            where it expects logits. Off by default: it is taken for a mistake, since it bounds that cross-entropy to
            0.31 from below.
        short_side: targets are shrunk so that their short side is at most this many pixels (SELF1E: 128); 0: the logits
            are brought to the full size of the target (MLLMSeg, Qwen3-VL-Seg).
    """

    bce: float = 1.0
    dice: float = 1.0
    focal: float = 0.0
    iou: float = 0.0
    auxiliary: float = 0.0
    text: float = 1.0
    smooth: float = 1.0
    dice_scale: float = 1.0
    focal_of_probabilities: bool = False
    short_side: int = 0

    def __call__(
        self,
        logits: Sequence[Tensor] | Tensor,
        targets: Sequence[Tensor] | Tensor,
        iou: Tensor | None = None,
        auxiliary: Sequence[Tensor] | Tensor | None = None,
        text: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Each part of the loss, weighted, and their sum as "loss"; means over the `N` masks.

        Args:
            logits: `N` maps `(h, w)`, of one size or several.
            targets: `N` masks `(H, W)` of 0 and 1, each at its picture's own size. N may be 0 if there is `text`.
            iou: `(N,)` predicted IoU as a logit.
            auxiliary: `N` maps `(h', w')`.
            text: the text's cross-entropy, `()`.

        Raises:
            ValueError: `logits` and `targets` differ in number, or there is nothing to learn from.
        """
        if len(logits) != len(targets):
            raise ValueError(f"MaskLoss: {len(logits)} masks of logits, {len(targets)} targets.")
        parts: dict[str, Tensor] = {}
        if len(targets):
            wanted = [self._shrunk(target.to(logits[0].device, torch.float32)) for target in targets]
            parts = self._masks(logits, wanted)
            if auxiliary is not None and self.auxiliary:
                parts["auxiliary"] = self.auxiliary * _sum(self._masks(auxiliary, wanted))
            if iou is not None and self.iou:
                parts["iou"] = self.iou * F.mse_loss(iou.float().sigmoid(), mask_iou(logits, wanted))
        if text is not None and self.text:
            parts["text"] = self.text * text
        if not parts:
            raise ValueError("MaskLoss: no mask and no text, or every weight is 0.")
        return {"loss": _sum(parts), **parts}

    def _shrunk(self, target: Tensor) -> Tensor:
        short = min(target.shape)
        if not self.short_side or short <= self.short_side:
            return target
        height, width = (round(side * self.short_side / short) for side in target.shape)
        return F.interpolate(target[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]

    def _masks(self, logits: Sequence[Tensor] | Tensor, targets: Sequence[Tensor] | Tensor) -> dict[str, Tensor]:
        """The weighted losses of masks alone."""
        columns: dict[str, list[Tensor]] = {}
        for _, found, truth in at_targets(logits, targets):
            for name, values in self._each(found, truth).items():
                columns.setdefault(name, []).append(values)
        return {name: getattr(self, name) * torch.cat(values).mean() for name, values in columns.items()}

    def _each(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Losses `(n,)` of logits and targets `(n, H, W)`."""
        parts: dict[str, Tensor] = {}
        probability = logits.sigmoid()
        if self.bce:
            parts["bce"] = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((1, 2))
        if self.focal:
            given = probability if self.focal_of_probabilities else logits
            entropy = F.binary_cross_entropy_with_logits(given, targets, reduction="none")
            miss = probability * (1 - targets) + (1 - probability) * targets
            share = ALPHA * targets + (1 - ALPHA) * (1 - targets)
            parts["focal"] = (share * miss**GAMMA * entropy).mean((1, 2))
        if self.dice:
            shared = 2 * (probability * targets / self.dice_scale).sum((1, 2)) + self.smooth
            both = ((probability + targets) / self.dice_scale).sum((1, 2)) + self.smooth
            parts["dice"] = 1 - shared / both
        return parts


def at_targets(
    logits: Sequence[Tensor] | Tensor, targets: Sequence[Tensor] | Tensor
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Masks of one size at a time: which they are, logits brought to the targets' size (bilinear), float32, targets.

    Args:
        logits, targets: `N` maps `(h, w)` and `N` masks `(H, W)`.
    """
    groups: dict[tuple, list[int]] = {}
    for order, (mask, target) in enumerate(zip(logits, targets, strict=True)):
        groups.setdefault((*mask.shape, *target.shape), []).append(order)
    for members in groups.values():
        truth = torch.stack([targets[order] for order in members]).float()  # (n, H, W)
        found = torch.stack([logits[order] for order in members])[:, None].float()  # (n, 1, h, w)
        yield members, F.interpolate(found, truth.shape[1:], mode="bilinear", align_corners=False)[:, 0], truth


@torch.no_grad()
def mask_iou(logits: Sequence[Tensor] | Tensor, targets: Sequence[Tensor] | Tensor) -> Tensor:
    """IoU `(N,)` of the masks where logits are above zero, at their targets' sizes; 0 where both are empty."""
    reached = torch.zeros(len(targets), device=logits[0].device)
    for members, found, truth in at_targets(logits, targets):
        painted, wanted = found > 0, truth > 0.5
        shared, either = (painted & wanted).sum((1, 2)), (painted | wanted).sum((1, 2))
        reached[members] = shared / either.clamp(min=1)
    return reached


def _sum(parts: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(parts.values())).sum()
