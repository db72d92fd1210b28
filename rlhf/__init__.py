"""The work itself: algorithms, models, training, evaluation, data, feedback, adapters. No orchestration."""
