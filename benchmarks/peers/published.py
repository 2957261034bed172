"""What papers say of the methods themselves: other machines, other images, their authors' figures."""

from __future__ import annotations

from dataclasses import dataclass

#: What all rows have in common, for the table.
NOTE = "as published, 7-Scenes SfM ground truth, not this machine"


@dataclass(frozen=True)
class PublishedMethod:
    """One method: mean over the 7 scenes of the median errors, and red kitchen's where the authors give it; texts as
    they stand.
    """

    method: str
    mean: str
    kitchen: str
    map_size: str
    mapping: str
    query: str


ROWS = (
    PublishedMethod(
        "DIMM (ICCV 2025)", "3.5 cm / 1.0 deg", "3.2 cm / 0.8 deg", "18.3 M parameters", "1.32 h (A800)", "20 fps"
    ),
    PublishedMethod("NaCR (follow-up of DIMM)", "2.2 cm / 0.4 deg", "", "39.5 M parameters", "3.63 h", "33 fps"),
    PublishedMethod("ACE (CVPR 2023)", "1.10 cm / 0.34 deg", "", "4 MB", "5 min", "18 fps"),
    PublishedMethod("GLACE (CVPR 2024)", "1.2 cm / 0.3 deg", "", "9 MB", "", ""),
    PublishedMethod(
        "hloc", "1.27 cm / 0.27 deg", "", "0.7 to 2.4 GB (Indoor-6)", "structure from motion", "14 s at 20 pairs"
    ),
)
