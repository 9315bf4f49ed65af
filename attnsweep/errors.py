"""What people are told as a sentence, never as a traceback."""


class UserError(ValueError):
    """A value, file or address that cannot be used; the message names it and says what to do."""


class Interrupted(RuntimeError):
    """A sweep that ended early for a reason outside it, such as a full disk; what is finished stays."""
