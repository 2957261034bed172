"""Recordings: posed images from bags, 7-Scenes folders and COLMAP models, behind one interface."""
