"""What a session looks like, as text and as a picture."""
