"""The segmentation task itself, usable without training: samples, boxes, masks, formats, decoders, metrics, data."""
