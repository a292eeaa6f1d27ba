"""Jobs on all cores of this machine, or on a Ray cluster."""
