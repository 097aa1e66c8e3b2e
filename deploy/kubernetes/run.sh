#!/bin/sh
# Asks the questions in the image of this pod's index. The last line that it prints is the result, for `cdblab fleet`.
# Usage: run.sh [CONFIG DISKS RESULTS]   the directories, for tests
config=${1:-/etc/cdblab} disks=${2:-/disks} results=${3:-/results}

line=$((JOB_COMPLETION_INDEX + 1))
disk=$(sed -n "${line}p" "$config/disks.txt")
if [ -z "$disk" ]; then
	echo "disks.txt has no line $line, expected the file name of an image: the job's completions must be the number of its lines" >&2
	exit 2
fi
cdblab run -disk "$disks/$disk" -o "$results"
code=$?
# A question that failed is a result. The job fails if there is no result, or if the VM failed (125).
cdblab facts -node "$NODE_NAME/$disk" "$results/latest" || exit 1
[ "$code" -le 1 ] || exit "$code"
