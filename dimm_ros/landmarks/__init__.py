"""Landmarks: keypoints whose places in the scene are known, as points or hidden in lines.

``keypoints`` finds them in images, ``pairs``, ``matching``, ``tracks`` and ``triangulation`` make a map of them
(``build``), ``store`` is what the map keeps, and ``locate`` finds the pose of images that show them.
"""
