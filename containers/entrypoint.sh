#!/bin/sh
# Entry point of golf-launch's images: says which image this is, then gives way to the command.
#
# Jobs name this file by its path. It exists in no other place, so that a runtime that was silently
# ignored (Slurm's --container without oci.conf, for one) ends in "not found" and not in a run
# beside the image. `exec` hands the process over, so that signals reach the command itself.
set -eu
GOLF_IMAGE=$(cat /opt/golf-launch/image-id)
export GOLF_IMAGE
PATH=/opt/venv/bin:$PATH
export PATH
exec "$@"
