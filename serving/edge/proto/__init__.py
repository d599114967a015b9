"""The protobuf interface. Regenerate in the repository's root with

``python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. serving/edge/proto/inference.proto``
"""
