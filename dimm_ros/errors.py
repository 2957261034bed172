"""Errors whose text is for the user: one sentence that names the cause and the cure."""


class DimmError(Exception):
    """Base of all errors that the command line prints, and the node reports, without a traceback."""


class InputError(DimmError):
    """An image or a camera that cannot be used (size, encoding, intrinsics)."""


class DataError(DimmError):
    """A recording (bag or folder) that cannot be read or lacks something needed."""


class MapError(DimmError):
    """A map file that is missing, damaged, or made for another encoder."""


class WeightsError(DimmError):
    """Encoder weights that cannot be found or are not the pinned ones."""


class TransformError(DimmError):
    """Two frames that no chain of transforms links."""


class TransformStampError(TransformError):
    """Two frames that are linked, but not at the stamp that was asked for."""


class ParameterError(DimmError):
    """A parameter of the node with a value of the wrong type or out of its bounds."""
