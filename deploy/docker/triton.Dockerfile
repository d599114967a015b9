# NVIDIA's Triton for the pods with a GPU: 24.10 carries server 2.51, the version that the tests run (embedded, on a CPU).
#
#   docker build -f deploy/docker/triton.Dockerfile -t medserve/triton:0.1.0 deploy/docker
#
# Nothing is added: models come by a volume. What is left out is root.

FROM nvcr.io/nvidia/tritonserver:24.10-py3
WORKDIR /tmp
USER 1000:1000
EXPOSE 8001 8002 8101
ENTRYPOINT []
CMD ["tritonserver", "--help"]
