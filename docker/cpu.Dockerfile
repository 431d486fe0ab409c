# stamp-deploy on the CPU: ONNX Runtime and OpenVINO, every output format, no torch.
#
#   docker build -f docker/cpu.Dockerfile -t stamp-deploy:cpu .
#   docker run --rm --network none --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#       -v SLIDES:/input:ro -v BUNDLE:/bundle:ro -v RESULTS:/output \
#       stamp-deploy:cpu batch /input --bundle /bundle -o /output
#
# RESULTS must be writable for user 10001. Nothing is downloaded when it runs. Pin both FROM lines to a digest for use.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev libjpeg62-turbo-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY csrc csrc
COPY stamp_deploy stamp_deploy
COPY training training
COPY export export
RUN python -m venv /opt/stamp \
    && /opt/stamp/bin/pip install --no-cache-dir '.[openvino,formats]'

FROM python:${PYTHON}-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends libjpeg62-turbo fonts-dejavu-core \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin stamp \
    && install -d -o 10001 -g 10001 /input /output /bundle
COPY --from=build /opt/stamp /opt/stamp
# The root file system may be read-only: caches of matplotlib, fontconfig and the like go to /tmp.
ENV PATH=/opt/stamp/bin:$PATH \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    XDG_CACHE_HOME=/tmp/cache \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# The build fails here where a library is missing.
RUN stamp-deploy doctor
USER 10001:10001
WORKDIR /output
VOLUME ["/input", "/output"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["stamp-deploy"]
CMD ["--help"]
