"""What is asked for: one request of each task, and whether its answer is what was promised."""
