"""What Millrace costs beside the bare runtime (`make bench`)."""
