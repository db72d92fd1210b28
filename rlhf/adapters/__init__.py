"""The outside world, one service per file: the object store (boto3), tracking and registry (MLflow)."""
