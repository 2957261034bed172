"""Is a recording fit to be mapped? Checks that name the fault, its cause and its cure. ROS is not needed."""
