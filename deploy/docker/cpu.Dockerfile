# stamp-deploy on the CPU: ONNX Runtime and OpenVINO, every output format, archives, the viewer; no torch.
#
#   docker build -f deploy/docker/cpu.Dockerfile -t stamp-deploy:cpu .
#   docker run --rm --network none --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#       -v SLIDES:/input:ro -v BUNDLE:/bundle:ro -v RESULTS:/output \
#       stamp-deploy:cpu batch /input --bundle /bundle -o /output
#
# RESULTS must be writable for user 10001. Nothing is downloaded when it runs. The Python packages are those of
# locks/cpu-image.txt, by hash, for the base's Python. /opt/stamp/sbom.cdx.json (CycloneDX) lists what is inside,
# /opt/stamp/debian-packages.txt the system's packages. Pin BASE to a digest for use (--build-arg BASE=...@sha256:...).
# Without an image registry: deploy/docker/base-from-debian makes a base, --build-arg BASE=localhost/stamp-debian takes it.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev libjpeg62-turbo-dev python3-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY locks/cpu-image.txt locks/cpu-image.txt
RUN python3 -m venv /opt/stamp \
    && /opt/stamp/bin/pip install --no-cache-dir --require-hashes -r locks/cpu-image.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY csrc csrc
COPY stamp_deploy stamp_deploy
COPY training training
COPY export export
RUN /opt/stamp/bin/pip install --no-cache-dir --no-deps '.[openvino,formats,codecs,dicomweb,dimse]' \
    && /opt/stamp/bin/pip check
RUN python3 -m venv /opt/sbom \
    && /opt/sbom/bin/pip install --no-cache-dir 'cyclonedx-bom>=5,<8' \
    && /opt/sbom/bin/cyclonedx-py environment --of JSON -o /opt/stamp/sbom.cdx.json /opt/stamp/bin/python

FROM ${BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends libjpeg62-turbo fonts-dejavu-core \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin stamp \
    && install -d -o 10001 -g 10001 /input /output /bundle
COPY --from=build /opt/stamp /opt/stamp
RUN dpkg-query --show --showformat '${Package} ${Version}\n' > /opt/stamp/debian-packages.txt
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
