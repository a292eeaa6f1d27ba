"""Files: archives, downloads, caches, atomic writes."""
