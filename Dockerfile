# The app in a container: docker build -t zocore . && docker run -p 7860:7860 -v zocore:/home/user/data zocore
# TORCH_INDEX chooses torch's build: the address of its CPU wheels, as PyTorch's own install page gives it, makes the
# image slim; the address of its CUDA wheels, or none, makes it run on a GPU too. All else is the same.
FROM python:3.12-slim

ARG TORCH_INDEX=""

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

RUN useradd --create-home --uid 1000 user
WORKDIR /home/user/app

# torch first and alone: the largest layer, and the only one that the variant changes
COPY requirements.txt .
RUN pip install ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} "$(grep '^torch[=<>~]' requirements.txt)"
# the notebooks' packages stay out of the image
RUN grep -vE '^(jupyterlab|ipywidgets|anywidget|datasets)' requirements.txt > app.txt && pip install -r app.txt

COPY --chown=user:user zocore zocore
COPY --chown=user:user app app

# runs and downloaded models live in one volume, so a new image keeps them
ENV HOME=/home/user \
    HF_HOME=/home/user/data/huggingface \
    ZOCORE_RUNS=/home/user/data/runs \
    ZOCORE_HOST=0.0.0.0 \
    ZOCORE_PORT=7860 \
    ZOCORE_HOSTED=1 \
    GRADIO_ANALYTICS_ENABLED=False \
    HF_HUB_DISABLE_TELEMETRY=1
RUN mkdir -p /home/user/data && chown user:user /home/user/data
VOLUME /home/user/data

USER user
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/', timeout=4)"
CMD ["python", "-m", "app"]
