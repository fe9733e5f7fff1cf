"""The two ways a run can go wrong: what the user asked for, and what the numbers say."""


class UserError(Exception):
    """Something in the input is wrong; the message says what, and what to do about it.

    The command line prints the message alone (no traceback) and exits with status 2.
    """


class MeasurementError(Exception):
    """A measured quantity cannot be trusted (non-finite, exactly -I or 0, not converged).

    The message names the model, the block and the prompt where these are known.
    """
