"""One deployable file of a session: safetensors, ONNX or torch.export's pt2."""
