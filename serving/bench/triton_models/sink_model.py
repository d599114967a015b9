"""Takes bytes, gives their number: what it costs to bring a body into Triton."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """BODY -> LENGTH."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Count."""
        lengths = [pb_utils.get_input_tensor_by_name(request, "BODY").as_numpy().size for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("LENGTH", np.array([n], np.int64))]) for n in lengths]
