"""The model of the start-up check: gives back what it is given."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """INPUT -> OUTPUT."""

    def execute(self, requests):
        """Echo."""
        taken = [pb_utils.get_input_tensor_by_name(request, "INPUT").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", one)]) for one in taken]
