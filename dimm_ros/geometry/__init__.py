"""Cameras, poses and Plücker rays: numpy float64, no torch, no ROS."""
