# syntax=docker/dockerfile:1
# The page on which people rank: no torch, no transformers, no MLflow.
#   docker build -f infra/docker/label.Dockerfile -t rlhf-label .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /app
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY infra/docker/label.txt infra/docker/
RUN pip install -c constraints.txt -r infra/docker/label.txt
COPY schemas schemas
COPY rlhf rlhf
COPY tasks tasks
COPY flows flows
COPY recipes recipes
# Its other requirements are for stages, which do not run here.
RUN pip install --no-deps .

FROM ${PYTHON_IMAGE} AS runtime
RUN useradd --create-home --uid 10001 rlhf && install -d -o rlhf -g rlhf /var/lib/rlhf
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 RLHF_HOME=/var/lib/rlhf
COPY --from=builder /opt/venv /opt/venv
WORKDIR /app
COPY infra infra
USER 10001
EXPOSE 8700
ENTRYPOINT ["python", "/app/infra/entrypoint.py"]
CMD ["rlhf", "label", "serve", "--host", "0.0.0.0", "--port", "8700"]
