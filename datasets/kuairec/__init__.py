"""KuaiRec, and synthetic data of the same form."""
