"""What a policy and a reward model are worth: paired win rates with intervals, probes, frontier, gate."""
