"""Annotations checked at run time, by a checker made when a function is first called: few are, in one process."""

from beartype import beartype


def when_called(function):
    """Give what checks the annotations of `function` at every call."""
    made = []

    def check(*args, **words):
        if not made:
            made.append(beartype(function))
        return made[0](*args, **words)

    return check
