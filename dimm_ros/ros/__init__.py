"""The node: a thin shell around the core."""
