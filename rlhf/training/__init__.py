"""One file per stage that trains: fit(...) saves a model and returns what was measured."""
