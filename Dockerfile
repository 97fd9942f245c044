# The app in a container: docker build -t zocore . && docker run -p 7860:7860 -v zocore:/home/user/data zocore
# For a GPU: docker build --build-arg TORCH_BACKEND=cu130 -t zocore . && docker run --gpus all ... (any name that
# `uv pip install --torch-backend` knows). The default, cpu, makes a slim image; all else is the same.
FROM python:3.12-slim

ARG TORCH_BACKEND=cpu

ENV PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

RUN useradd --create-home --uid 1000 user
WORKDIR /home/user/app

# uv knows where the builds of torch are; what the app needs is a layer of its own, made anew only when the list changes
COPY pyproject.toml .
RUN pip install uv==0.13.8 \
    && uv pip install --system --torch-backend "${TORCH_BACKEND}" -r pyproject.toml --extra app

# Triton builds its launchers with a C compiler when a run first needs them; without a GPU nothing does
RUN if [ "${TORCH_BACKEND}" != cpu ]; then \
        apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; \
    fi

COPY --chown=user:user zocore zocore
COPY --chown=user:user app app

# runs and downloaded models live in one volume, so a new image keeps them
ENV HOME=/home/user \
    HF_HOME=/home/user/data/huggingface \
    TRITON_CACHE_DIR=/home/user/data/triton \
    ZOCORE_RUNS=/home/user/data/runs \
    ZOCORE_HOST=0.0.0.0 \
    ZOCORE_PORT=7860 \
    ZOCORE_HOSTED=1 \
    GRADIO_ANALYTICS_ENABLED=False \
    HF_HUB_DISABLE_TELEMETRY=1
RUN mkdir -p /home/user/data && chown user:user /home/user/data
VOLUME /home/user/data

USER 1000
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/', timeout=4)"]
CMD ["python", "-m", "app"]
