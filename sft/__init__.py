"""Supervised warm start: the text formats, the mask decoders, and the merge into one plain model directory."""
