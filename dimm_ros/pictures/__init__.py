"""Localized images as pictures: a neutral description of what is to be seen, and one writer for each viewer."""
