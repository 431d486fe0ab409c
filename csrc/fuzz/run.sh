#!/bin/sh
# Fuzz the JPEG tile decoder and the mosaic under the address and undefined-behaviour sanitizers, then the readers of
# TIFF directories (SVS, Philips, pages inside of pages, NDPI), of DICOM headers and of the records of SCN, BIF and MIRAX.
#     csrc/fuzz/run.sh [SECONDS] [FOLDER]
# FOLDER keeps the corpus and what was found (default: build/fuzz). Exit status 0: nothing found.
set -eu
seconds=${1:-600}
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${2:-$root/build/fuzz}
python=${PYTHON:-$root/.venv/bin/python}
CC=${CC:-clang}
if ! command -v "$CC" >/dev/null; then
    echo "$CC is not installed: apt-get install clang (libFuzzer comes with it)" >&2
    exit 2
fi
mkdir -p "$folder/corpus" "$folder/found"
"$python" "$root/csrc/fuzz/make_corpus.py" "$folder/seeds"
"$CC" -g -O1 -fno-omit-frame-pointer -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
    -I"$root/csrc" "$root/csrc/fuzz/fuzz_tile.c" "$root"/csrc/*.c -ljpeg -lm -o "$folder/fuzz_tile"
"$folder/fuzz_tile" -max_total_time="$seconds" -max_len=40000 -timeout=20 -rss_limit_mb=2048 \
    -artifact_prefix="$folder/found/" -print_final_stats=1 "$folder/corpus" "$folder/seeds"
for target in tiff dicom scn bif pages ndpi mirax; do
    "$python" "$root/csrc/fuzz/fuzz_$target.py" --seconds "$((seconds / 7))" --found "$folder/found"
done
