"""The package beside what people use today: the same images, poses, machine and run. See ``__main__``."""
