#!/bin/sh
# Last step of an image's build: its identity is the digest of every package version inside.
set -eu
{
  dpkg-query --show --showformat='${Package} ${Version}\n'
  /opt/venv/bin/python -m pip freeze --all
} >/opt/golf-launch/contents.txt
digest=$(sha256sum /opt/golf-launch/contents.txt | cut -d' ' -f1)
echo "sha256:$digest" >/opt/golf-launch/image-id
