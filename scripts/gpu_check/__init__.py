"""The generation engine on an NVIDIA GPU: whether it is right, and how near it comes to what the card can do."""
