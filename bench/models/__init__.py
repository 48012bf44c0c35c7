"""The models that are measured, written with numpy and onnx alone: real shapes, random weights, always the same."""
