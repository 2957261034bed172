"""A map's network outside PyTorch: exported to ONNX, run by ONNX Runtime."""
