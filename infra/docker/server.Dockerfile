# syntax=docker/dockerfile:1
# Prefect's and MLflow's servers: neither needs torch or the pipeline.
#   docker build -f infra/docker/server.Dockerfile -t rlhf-server .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /app
COPY constraints.txt ./
COPY infra/docker/server.txt infra/docker/
RUN pip install -c constraints.txt -r infra/docker/server.txt

FROM ${PYTHON_IMAGE} AS runtime
RUN useradd --create-home --uid 10001 rlhf && install -d -o rlhf -g rlhf /var/lib/rlhf
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
COPY --from=builder /opt/venv /opt/venv
WORKDIR /app
COPY infra infra
USER 10001
ENTRYPOINT ["python", "/app/infra/entrypoint.py"]
CMD ["prefect", "version"]
