"""What a model is made of, besides networks."""


class Part:
    """A generator or an encoder that the file of a model can hold.

    Its constructor's parameters can be written; what it has learned is in attributes that end in
    ``_``, or in ``get_state()``. It neither downloads nor executes anything.
    """
