"""One GPU, measured: the networks under PyTorch, their TensorRT-RTX plans, and both behind a real Triton.

    python -m loadtests.gpu.prepare inputs                    # where the project is installed: writes what travels
    python -m loadtests.gpu.run inputs --out results          # on the GPU's machine; --device cpu --small rehearses it

Every section stands alone: its failure is printed and written down, and the next one runs. Needs PyTorch, numpy and OpenCV;
TensorRT-RTX with onnx and ml_dtypes, and nvidia-pytriton with tritonclient, where their sections are asked for.
"""
