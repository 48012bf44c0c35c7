"""The model repository: NAME/VERSION/ and what lies in it, read, checked and refused before an engine is built.

    source → scanning → (versions, manifest, graph files, warm-up requests) → Model, or Broken with the reason
    Model → engines → an Engine, warm

docs/models.md tells what a folder may hold.
"""

from services.worker.repository.engines import load, resolve_device
from services.worker.repository.model import Broken, Model
from services.worker.repository.model_file import ModelFile
from services.worker.repository.scanning import MODEL_FILE, scan

__all__ = ["MODEL_FILE", "Broken", "Model", "ModelFile", "load", "resolve_device", "scan"]
