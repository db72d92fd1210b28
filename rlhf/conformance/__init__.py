"""Does an implementation of RLHF do what it should? `pytest --pyargs rlhf.conformance --backend=ours|trl|FILE`."""
