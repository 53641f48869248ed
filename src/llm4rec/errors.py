"""The exceptions a caller can meet, in one tree.

Everything raised on purpose derives from `LLM4RecError` and carries a sentence a person can act on.
`exit_code` is what the command line returns for it: 2 where the input or the request is at fault,
1 where the work failed.
"""


class LLM4RecError(Exception):
    """Something this package can explain went wrong."""

    exit_code = 1


class InputError(LLM4RecError):
    """A file, a row, a column or an argument can't be used; the message names it and the remedy."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration key or value is unknown, of the wrong type or out of range."""


class ArtefactError(InputError):
    """A model directory is missing, incomplete, altered, or of a newer format."""


class ClockError(InputError):
    """What was asked for needs real times, and the data has only an order within each person."""


class DownloadError(LLM4RecError):
    """A data set could not be fetched whole from its publisher."""


class EventLogError(LLM4RecError):
    """The event log can't be read or written now; what was not acknowledged is to be sent again."""


class TrainingError(LLM4RecError):
    """Training can't go on, for a cause the message names."""


class LanguageModelError(LLM4RecError):
    """A language model that was asked to write did not answer."""


class MissingPackageError(LLM4RecError):
    """An optional package is needed for this and is not installed; the message names the extra."""

    exit_code = 2
