"""ONNX Runtime by Triton's python backend, under the name of Triton's own backend "onnxruntime".

nvidia-pytriton's server has the python backend alone. This file, in a folder of that name, lets it take the
repositories that `stamp-deploy triton` writes as they are. What runs is Triton: its queues, batches, configuration and
protocols; only the call of ONNX Runtime is ours.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        file = Path(args["model_repository"], args["model_version"], config["default_model_filename"])
        self.session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self.batched = config["max_batch_size"] > 0
        self.input = config["input"][0]["name"]
        self.outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests):
        arrays = [triton.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        if self.batched:
            ends = np.cumsum([len(array) for array in arrays])[:-1]
            found = self.session.run(self.outputs, {self.input: np.concatenate(arrays)})
            parts = zip(*(np.split(values, ends) for values in found), strict=True)
        else:
            parts = [self.session.run(self.outputs, {self.input: array}) for array in arrays]
        return [triton.InferenceResponse(list(map(triton.Tensor, self.outputs, part))) for part in parts]
