"""How good is a map: metrics, baselines, tables, pictures."""
