"""What Millrace costs beside the bare engine (`make bench`)."""
