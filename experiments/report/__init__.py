"""Pages, figures and recorded sessions; one template and one style."""
