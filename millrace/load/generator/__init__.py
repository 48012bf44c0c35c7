"""The process that makes calls, when they are due, and what it sees of them."""
