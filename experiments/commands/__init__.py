"""The commands of ``rapport``, one module each; imported when they are called."""
