#!/bin/sh
# Builds the CPU image and scores SLIDES in it with the options that its Dockerfile promises: no network, read-only root.
#   tests/deploy/try-image.sh SLIDES BUNDLE [options of buildah bud, as --build-arg BASE=localhost/stamp-debian]
# Needs buildah, podman and runc, and root rights; 10 minutes on two cores. Not part of the test suite.
set -eu
slides=$(realpath "$1") bundle=$(realpath "$2")
shift 2
cd "$(dirname "$0")/../.."
buildah bud --isolation chroot -f deploy/docker/cpu.Dockerfile -t stamp-deploy:cpu "$@" .
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
chown 10001:10001 "$out"
limits="--ulimit nofile=4096:4096 --ulimit nproc=4096:4096" # of this host: no container may raise its own
run() {
    # shellcheck disable=SC2086 # a list of options
    podman --runtime runc --cgroup-manager cgroupfs run --rm --pull never $limits \
        --network none --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges "$@"
}
run -v "$slides":/input:ro -v "$bundle":/bundle:ro -v "$out":/output localhost/stamp-deploy:cpu \
    batch /input --bundle /bundle -o /output
for done in "$out"/*/DONE; do
    run -v "$(dirname "$done")":/input:ro localhost/stamp-deploy:cpu verify /input
done
echo "the image scored $(ls "$out"/*/DONE | wc -l) slides"
