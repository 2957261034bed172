"""What is wrong with a picture that shows nothing."""

from __future__ import annotations

import numpy as np

#: Largest difference, in grey levels, within which a picture counts as one colour: a covered lens is not quite black.
_FLAT = 12


def why_blind(image: np.ndarray) -> str:
    """One sentence when an (H, W, 3) uint8 RGB image shows nothing at all: black, white or of one colour; else
    empty.
    """
    sample = image[::8, ::8].reshape(-1, 3)
    low, high = np.percentile(sample, [1, 99], axis=0)
    if (high - low).max() > _FLAT:
        return ""
    level = float(sample.mean())
    if level < 32:
        return "The image is black: the lens is covered, it is dark, or the exposure is too short."
    if level > 223:
        return "The image is white: the exposure is too long, or light shines into the lens."
    return "The image is of one colour: the lens is covered, or the camera stands before a blank wall."
