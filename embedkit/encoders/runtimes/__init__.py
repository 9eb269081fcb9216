"""What computes an encoder: ONNX Runtime, OpenVINO or torch, behind one small face."""
