"""The ONNX graph: how the model is written into it and what is made faster in it."""
