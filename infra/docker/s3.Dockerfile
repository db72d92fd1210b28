# syntax=docker/dockerfile:1
# A small real S3 server: OpenStack Swift with its s3api, one replica on one volume. In a cloud, use the cloud's own.
#   docker build -f infra/docker/s3.Dockerfile -t rlhf-s3 .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /app
COPY infra/docker/s3.txt ./
RUN pip install -r s3.txt

FROM ${PYTHON_IMAGE} AS runtime
RUN apt-get update \
 && apt-get install --yes --no-install-recommends memcached=1.6.* \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 rlhf && install -d -o rlhf -g rlhf /var/lib/rlhf
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
COPY --from=builder /opt/venv /opt/venv
WORKDIR /app
COPY infra infra
USER 10001
EXPOSE 9000
ENTRYPOINT ["python", "/app/infra/entrypoint.py"]
CMD ["python", "/app/infra/object_server.py", "--host", "0.0.0.0", "--port", "9000", "--home", "/var/lib/rlhf"]
