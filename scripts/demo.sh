#!/bin/sh
# The whole story at laptop scale, through `ray job submit`, on a Ray cluster of its own; see jobs/sweeps/demo.yaml.
#
#   scripts/demo.sh [OUTPUT]      run inside the virtual environment; `make demo` does that
set -eu
output=${1:-sweeps/demo}

# A cluster of its own, in another folder, on other ports, with a token that only this script knows: it neither meets
# nor disturbs one that runs here already.
RAY_TMPDIR=$(mktemp -d /tmp/liftgs-demo-XXXXXX)  # the paths of sockets must be short, as those of TMPDIR may not be
export RAY_TMPDIR
RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE RAY_AUTH_TOKEN
free_port() { python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free_port)
ray start --head --block --disable-usage-stats --port=0 --ray-client-server-port="$(free_port)" \
  --dashboard-host=127.0.0.1 --dashboard-port="$port" --dashboard-agent-listen-port=0 >"$RAY_TMPDIR/start.log" 2>&1 &
ray=$!
trap 'kill $ray 2>/dev/null || :; wait $ray 2>/dev/null || :; rm -rf "$RAY_TMPDIR"' EXIT  # dash obeys -e in a trap too
trap 'exit 130' INT TERM

export RAY_ADDRESS="http://127.0.0.1:$port"
tries=0
until ray job submit -- true >/dev/null 2>&1; do  # the dashboard answers before it can run jobs
  tries=$((tries + 1))
  if [ $tries -gt 60 ] || ! kill -0 $ray 2>/dev/null; then
    echo "Ray did not start:" >&2
    tail -20 "$RAY_TMPDIR/start.log" >&2
    exit 1
  fi
  sleep 1
done
echo "Ray runs; its dashboard is at $RAY_ADDRESS while this lasts"

# Label rooms, pretrain on them, ask the network by name, finetune on few labels with and without pretraining, report.
ray job submit -- jobs/pseudolabel.yaml "source=procedural:apartments?scenes=16" output=corpora/demo
liftgs inspect corpora/demo --output corpora/demo/report.html
ray job submit -- jobs/sweep.yaml sweeps=demo "output=$output"
liftgs ground tiny "procedural:apartments/000005?seed=1000000" "a rug" "a bookshelf" --top 1 --image "$output/found.png"
echo
echo "what it did:    $(cd "$output" && pwd)/report.html   (open it in a browser)"
echo "the labels:     $(pwd)/corpora/demo/report.html"
echo "asked by name:  $(cd "$output" && pwd)/found.png"
echo "This was a taste: one seed and a minute of training a network. What pretraining is worth is measured by"
echo "  ray job submit jobs/sweep.yaml            # hours; its log tells how many are left"
