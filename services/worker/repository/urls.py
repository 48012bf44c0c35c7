"""What may be told of the URL of a repository."""

import re


def redacted(url: str) -> str:
    """Without what stands before an @ in it and behind a ?: names, passwords and keys."""
    return re.sub(r"\?[^:]*", "?***", re.sub(r"//[^/@]*@", "//***@", url))
