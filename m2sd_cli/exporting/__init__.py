"""One deployable file of a session: safetensors, ONNX or torch.export's pt2."""

FORMATS = ("safetensors", "onnx", "pt2")
