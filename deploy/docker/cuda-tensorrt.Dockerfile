# stamp-deploy for NVIDIA GPUs: TensorRT from the vendor's base image, ONNX Runtime with CUDA beside it.
#
#   docker build -f deploy/docker/cuda-tensorrt.Dockerfile -t stamp-deploy:cuda .
#   docker run --rm --gpus all --network none --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#       -v SLIDES:/input:ro -v BUNDLE:/bundle:ro -v RESULTS:/output -v CACHE:/cache \
#       stamp-deploy:cuda batch /input --bundle /bundle -o /output
#
# TensorRT plans are built on the machine that uses them and kept in CACHE, so that the next container need not build
# them again. RESULTS and CACHE must be writable for user 10001, CACHE for nobody else. The host needs the vendor's
# container toolkit and a driver that serves the image's CUDA. Nothing is downloaded when it runs.
# Another release of the base image: --build-arg TENSORRT=YY.MM. Pin it to a digest for use.
ARG TENSORRT=25.10
FROM nvcr.io/nvidia/tensorrt:${TENSORRT}-py3 AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev libjpeg-turbo8-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY csrc csrc
COPY stamp_deploy stamp_deploy
COPY training training
COPY export export
# The image's own TensorRT bindings are used (--system-site-packages), so that libraries and bindings are one version;
# the CPU wheel of ONNX Runtime makes room for the one with CUDA: the two cannot be installed together.
RUN python3 -m venv --system-site-packages /opt/stamp \
    && /opt/stamp/bin/pip install --no-cache-dir '.[formats]' 'cuda-bindings>=13.0' 'onnx>=1.17' \
    && /opt/stamp/bin/pip uninstall -y onnxruntime \
    && /opt/stamp/bin/pip install --no-cache-dir "onnxruntime-gpu<1.33"

FROM nvcr.io/nvidia/tensorrt:${TENSORRT}-py3
RUN apt-get update \
    && apt-get install -y --no-install-recommends libjpeg-turbo8 fonts-dejavu-core \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin stamp \
    && install -d -o 10001 -g 10001 -m 700 /input /output /bundle /cache
COPY --from=build /opt/stamp /opt/stamp
# The root file system may be read-only: what has to be written goes to /tmp and /cache.
ENV PATH=/opt/stamp/bin:$PATH \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    XDG_CACHE_HOME=/cache \
    CUDA_CACHE_PATH=/cache/cuda \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# The build fails here where a module is missing; the GPU itself is looked at when the container runs (`doctor`).
RUN stamp-deploy --help && python3 -c "import stamp_deploy._tiler, stamp_deploy.infer, tensorrt, onnxruntime"
USER 10001:10001
WORKDIR /output
VOLUME ["/input", "/output", "/cache"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["stamp-deploy"]
CMD ["--help"]
