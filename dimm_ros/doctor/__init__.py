"""Is a recording fit to be mapped? Checks that name the fault, its cause and its cure. Only ``live_ros`` needs ROS."""
