"""From answers to measures, each with what it might as well have been."""
