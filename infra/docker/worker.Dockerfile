# syntax=docker/dockerfile:1
# The pipeline: command line, worker, deployments.
#   docker build -f infra/docker/worker.Dockerfile --target cpu  -t rlhf-worker:cpu  .
#   docker build -f infra/docker/worker.Dockerfile --target cuda -t rlhf-worker:cuda .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /app
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY infra/docker/kubernetes.txt infra/docker/
COPY schemas schemas
COPY rlhf rlhf
COPY tasks tasks
COPY flows flows
COPY recipes recipes

# PyTorch's own index has the build without CUDA; the default index has the one with it.
FROM builder AS build-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install -c constraints.txt torch --index-url "${TORCH_INDEX}" \
 && pip install -c constraints.txt -r infra/docker/kubernetes.txt .

FROM builder AS build-cuda
RUN pip install -c constraints.txt -r infra/docker/kubernetes.txt '.[gpu]'

FROM ${PYTHON_IMAGE} AS runtime
RUN useradd --create-home --uid 10001 rlhf && install -d -o rlhf -g rlhf /var/lib/rlhf
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 RLHF_HOME=/var/lib/rlhf HF_HOME=/var/lib/rlhf/huggingface
WORKDIR /app
COPY prefect.yaml ./
COPY infra infra
USER 10001
ENTRYPOINT ["python", "/app/infra/entrypoint.py"]
CMD ["rlhf", "doctor"]

FROM runtime AS cpu
COPY --from=build-cpu /opt/venv /opt/venv

# torch's wheels carry the CUDA libraries; the driver comes from the host, by NVIDIA's container toolkit.
FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/venv /opt/venv
