"""KuaiRec, and a synthetic stand-in."""
