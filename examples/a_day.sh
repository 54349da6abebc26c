#!/usr/bin/env bash
# A day's work from the shell: bash examples/a_day.sh FOLDER [steps]
# Tune, train the best settings, lose the process and go on, judge, draw, film, export, serve, and play through the server.
set -euo pipefail
day=$1 steps=${2:-50000}
say() { printf '\n$ kerasrl-pg %s\n' "$*"; kerasrl-pg "$@"; }

say list agents
say tune --agent=ppo --env=CartPole-v1 --total_steps="$steps" --trials="${TRIALS:-6}" --seeds=2 --verbose=0 --out="$day/tuned"
say info "$day/tuned/best.yaml"

printf '\n$ kerasrl-pg train --config=%s/tuned/best.yaml ... &   # killed when it has saved its first checkpoint\n' "$day"
kerasrl-pg train --config="$day/tuned/best.yaml" --total_steps=$((20 * steps)) --checkpoint_seconds=0.5 --verbose=0 \
    --notensorboard --out="$day/run" &
running=$!
until [ -e "$day/run/checkpoint.keras" ]; do
    kill -0 $running || { echo "It ended before it was killed."; exit 1; }
    sleep 0.1
done
kill -9 $running
wait $running || true
say train --resume --verbose=2 --out="$day/run"

say evaluate --from="$day/run" --episodes=100 --json="$day/evaluation.json"
say plot "$day/run" --out="$day/curve.png"
say report --from="$day/run" --out="$day/report.html"
say video --from="$day/run" --out="$day/film.gif"
say export --from="$day/run" --out="$day/served/1"
say info "$day/served/1"

printf '\n$ kerasrl-pg serve --development --model=%s/served &\n' "$day"
kerasrl-pg serve --development --model="$day/served" --port=0 --rest_port=0 > "$day/server.log" 2>&1 &
server=$!
trap 'kill $server' EXIT
until grep -q "http://" "$day/server.log"; do
    kill -0 $server || { cat "$day/server.log"; exit 1; }
    sleep 0.2
done
address=$(grep -o "http://[0-9.:a-z]*" "$day/server.log" | head -1)
python - "$address" <<PLAY
import sys
import kerasrl_pg as pg

with pg.serving.Client(sys.argv[1]) as client:
    print("Played through the server:", pg.serving.play(client, "CartPole-v1", episodes=10))
PLAY

SDL_VIDEODRIVER=${SDL_VIDEODRIVER:-dummy} say play --from="$day/run" --episodes=1 --env=CartPole-v1
