"""From a recording to a map file."""
