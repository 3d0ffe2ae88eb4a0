#!/usr/bin/env bash
# Builds the CPU image by Charliecloud, without docker and without a registry of images:
#
#   containers/charliecloud.sh FOLDER [PYTHON]
#
# 1. The base, of the name that the Dockerfile starts from, is made by debootstrap (needs root).
# 2. Wheels are fetched by pip of PYTHON (python3), so that its settings hold; torch without CUDA is
#    found where they lead to it, or taken from ./wheels.
# 3. The image is built from Dockerfile.cpu and put into FOLDER whole, or not at all.
set -euo pipefail
out=$(realpath -m "${1:?name the folder of the image}")
python=$(command -v "${2:-python3}")
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
[[ ! -e $out ]] || { echo "$out exists; remove it, or name another folder" >&2; exit 1; }
for tool in ch-image ch-convert debootstrap; do
  command -v $tool >/dev/null || { echo "needs $tool: apt-get install charliecloud debootstrap" >&2; exit 1; }
done

base=$(sed -n 's/^FROM //p' containers/Dockerfile.cpu)
suite=${base#*:} suite=${suite%-slim}
work=$(mktemp -d "$(dirname "$out")/.building-XXXXXX")
trap 'rm -rf "$work"' EXIT
export USER=${USER:-$(id -un)} CH_IMAGE_STORAGE=$work/storage
# ch-image runs on the system's Python, which has the modules it needs.
build() { PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin "$@"; }
step() { printf '%(%T)T %s\n' -1 "$*"; }

step "wheels"
mkdir -p "$work/context/wheels"
[[ ! -d wheels ]] || cp -r wheels/. "$work/context/wheels"
cp -r constraints.txt containers "$work/context"
# Those of the image's Python, whatever runs here.
wanted=(--only-binary=:all: --implementation cp --python-version 3.11
  --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64
  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64)
mapfile -t packages < <(grep -v '^#' containers/packages.txt)
"$python" -m pip download --quiet --dest "$work/context/wheels" --find-links "$work/context/wheels" \
  "${wanted[@]}" -c constraints.txt "${packages[@]}"

step "base of Debian $suite"
build debootstrap --variant=minbase "$suite" "$work/base" >"$work/debootstrap.log" ||
  { tail -5 "$work/debootstrap.log" >&2; exit 1; }
build tar -C "$work/base" -cf "$work/base.tar" .
rm -rf "$work/base"
build ch-image import "$work/base.tar" "$base"
rm "$work/base.tar"

step "image"
build ch-image build --no-cache --force --build-arg PIP_WORDS=--no-index \
  -f "$work/context/containers/Dockerfile.cpu" -t golf-launch-cpu "$work/context"
rm -rf "$work/context"
build ch-convert golf-launch-cpu "$work/image"
mv "$work/image" "$out"
step "done: $out, $(cat "$out/opt/golf-launch/image-id")"
