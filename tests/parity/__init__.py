"""Models as Hugging Face's transformers runs them, against the same models exported to ONNX and served by the engine.

    families.py   small random models of each family
    originals.py  transformers: the weights, the logits, the text
    exports.py    onnxruntime-genai's model builder and mobius: the model's folder

They need torch, which has an environment of its own: `make parity`.
"""
