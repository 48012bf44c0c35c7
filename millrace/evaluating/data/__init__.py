"""Labelled data: from files to examples."""

from millrace.evaluating.data.dataset import Dataset, read_dataset
from millrace.evaluating.data.example import Example

__all__ = ["Dataset", "Example", "read_dataset"]
