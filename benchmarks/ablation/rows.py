"""The rows of the ablation table: each changes one thing in the default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dimm_ros.config import PRESETS, HeadConfig, SolverConfig, TrainingConfig

TRIAL_STEPS = 250


@dataclass(frozen=True)
class Row:
    """One way to make a map.

    Attributes:
        lever: which lever of the table it belongs to.
        name: what it changes.
        kind: the head itself, one with self-attention, or something instead of it.
        views, passes: training views, see ``features.VIEWS``.
        layers: whose patch tokens are stacked.
        context: "cls", "mean" or "parts".
        head, training, solver: changed fields of the configuration.
        input_size: of the encoder.
        early_stop: keep the weights that were best on the held-out frames.
    """

    lever: str
    name: str
    kind: Literal["head", "self-attention", "regression", "kernel", "retrieval"] = "head"
    views: str = "default"
    passes: int = PRESETS["cpu"].training.passes
    layers: tuple[int, ...] = (12,)
    context: str = "parts"
    head: dict = field(default_factory=dict)
    training: dict = field(default_factory=lambda: {"steps": TRIAL_STEPS})
    solver: dict = field(default_factory=dict)
    input_size: int = 448
    early_stop: bool = False

    def configs(self, seed: int) -> tuple[HeadConfig, TrainingConfig, SolverConfig]:
        """Head, training and solver of a seed."""
        preset = PRESETS["cpu"]
        return (
            preset.head.changed(**self.head),
            preset.training.changed(**self.training | {"seed": seed}),
            SolverConfig().changed(**self.solver),
        )


def trial(**training: object) -> dict:
    """Training of a trial with some fields changed."""
    return {"steps": TRIAL_STEPS, **training}


#: The configuration that is shipped, as long as it is shipped; judged on every split with three seeds.
DEFAULT = Row("default", f"the default ({PRESETS['cpu'].training.steps} steps)", training={})

#: Of the default's map itself.
PATCHES_ALONE = Row("parts", "the patches' rays alone, without what the whole image tells", training={})

#: What else the same features can be used for; judged like the default.
PARTS = [
    Row("parts", "retrieval (most similar CLS token)", kind="retrieval"),
    Row("parts", "direct pose regression, network on the context", kind="regression", training={}),
    Row("parts", "direct pose regression, kernel on the context (the whole-image part alone)", kind="kernel"),
    PATCHES_ALONE,
    Row("parts", "one mapper (N = 1)", head={"mappers": 1}, training={}),
    Row("parts", "no attention: mean of the mappers", head={"fusion": "mean"}, training={}),
]

#: Short trainings on one split.
TRIALS = [
    Row("0 baseline", f"the default at {TRIAL_STEPS} steps"),
    Row("1 turned views", "recorded images only", passes=1),
    Row("1 turned views", "one turned view per image", views="turned", passes=2),
    Row("2 moved views", "one moved view per image, recorded depth", passes=2),
    Row("3 moved views", "one moved view per image, depth from stereo", views="stereo", passes=2),
    Row("4 context", "CLS token only (the paper's)", context="cls"),
    Row("4 context", "CLS and mean tokens, no parts", context="mean"),
    Row("4 regularisation", "weight decay 0.1", training=trial(weight_decay=0.1)),
    Row("4 regularisation", "early stop on held-out frames", early_stop=True),
    Row("5 head", "N = 1", head={"mappers": 1}),
    Row("5 head", "N = 8", head={"mappers": 8}),
    Row("5 head", "width 128", head={"width": 128}),
    Row("5 head", "width 384", head={"width": 384}),
    Row("5 head", "depth 1", head={"depth": 1}),
    Row("5 head", "depth 4", head={"depth": 4}),
    Row("5 head", "mean of the mappers", head={"fusion": "mean"}),
    Row("5 head", "patch tokens of layer 9", layers=(9,)),
    Row("5 head", "patch tokens of layers 9 and 12", layers=(9, 12)),
    Row("5 head", "two self-attention layers before the mappers", kind="self-attention"),
    Row("5 head", "no confidence (plain distances)", head={"confidence": False}),
    Row("5 head", "nothing from the whole image (the paper's head)", head={"whole_share": 0.0}),
    Row("5 head", "whole-image share 0.5, whatever the novelty", head={"whole_share": 0.5, "whole_novelty": 1e-4}),
    Row("6 encoder", "input size 336", views="small", input_size=336),
    Row("7 solver", "fixed thresholds, no weights from confidence", solver={"use_confidence": False}),
    Row("7 solver", "thresholds follow the confidence ten times further", solver={"confidence_range": 10.0}),
    Row("7 solver", "no joint refinement", solver={"refine": False}),
]
