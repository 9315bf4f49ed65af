"""The one exception for a user's mistake: shown as a sentence, never as a traceback."""


class UserError(ValueError):
    """A value, file or address that cannot be used; the message names it and says what to do."""
