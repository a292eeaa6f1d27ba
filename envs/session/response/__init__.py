"""How users respond to slates: the protocol, looked-up tables, and the user model fitted to a log."""
