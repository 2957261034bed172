"""Poses over time: which estimates are believed (``gate``), and where the next image will be (``tracker``)."""
