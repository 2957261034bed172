"""The dimm command: a verb per file."""
