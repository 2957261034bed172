"""The dimm command: a verb per file."""

from dimm_ros.dependencies import need

need("typer", "0.9.4")  # 0.9.0 (Ubuntu 24.04's) knows no short options beside the verbs, 0.7 fails at import
need("pydantic", "2")
