"""Frozen DINOv2: images to tokens."""
