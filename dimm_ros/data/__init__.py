"""Recordings: posed images from ROS bags and from folders in the layouts that data sets are published in, behind one
interface.
"""
