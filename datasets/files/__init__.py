"""Files: archives, downloads, CSV tables, caches, atomic writes."""
