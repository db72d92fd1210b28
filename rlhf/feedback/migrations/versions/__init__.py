"""One step per module; `revision` and `down_revision` chain them."""
