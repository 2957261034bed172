"""What each part of the method is worth: ``python -m benchmarks.ablation``."""
