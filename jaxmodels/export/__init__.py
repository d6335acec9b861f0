"""Trained models in files that other programs read: StableHLO, ONNX and safetensors."""
