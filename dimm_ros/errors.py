"""Errors whose text is for the user: one sentence that names the cause and the cure."""

#: What reading JSON leads to that was damaged, or made to harm.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


class DimmError(Exception):
    """Base of all errors that the command line prints, and the node reports, without a traceback."""

    def __str__(self) -> str:
        """The sentence; names in it may come from a stranger's file, and must not command the terminal."""
        return plain(super().__str__())


class InputError(DimmError):
    """An image or a camera that cannot be used (size, encoding, intrinsics)."""


class DataError(DimmError):
    """A recording (bag or folder) that cannot be read or lacks something needed."""


class MapError(DimmError):
    """A map file that is missing, damaged, or made for another encoder."""


class BusyError(MapError):
    """A map that another process is making at the same moment."""


class WeightsError(DimmError):
    """Encoder weights that cannot be found or are not the pinned ones."""


class TransformError(DimmError):
    """Two frames that no chain of transforms links."""


class TransformStampError(TransformError):
    """Two frames that are linked, but not at the stamp that was asked for."""


class ParameterError(DimmError):
    """A parameter of the node with a value of the wrong type or out of its bounds."""


def plain(text: str, *, lines: bool = True) -> str:
    """Text in which characters that a terminal obeys, or that hide others, are U+FFFD; line ends and tabs stay where
    ``lines``.
    """
    return "".join(
        character if character.isprintable() or (lines and character in "\n\t") else "\ufffd" for character in text
    )


def first_line(error: Exception) -> str:
    """What another library's error says, for the middle of a sentence."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
