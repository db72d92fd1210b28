"""What a run will need: tokens of each stage, memory, and the speed of this machine."""
