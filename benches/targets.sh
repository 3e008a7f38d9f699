#!/usr/bin/env bash
# Measures every figure of the table in docs/performance.md, and prints that table: the target beside what was measured.
#
#     cargo build --release && benches/targets.sh          (all; or the names of some: search jobs parsed events sent
#                                                           live idle many latency binary)
#
# Takes some ten minutes. FILES (10000): how many logs `many` follows.  SIZE, RUNS, WORK: see common.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
source benches/common.sh
FILES=${FILES:-10000}
IDLE=${IDLE:-60} # seconds
ALL=(search jobs parsed events sent live idle many latency binary)
CONFIG=$WORK/targets.toml

row() { printf '| %s | %s | %s |\n' "$1" "$2" "$3"; }

dry_run() { timed "$SILKTAIL" backfill --full-priority --config "$CONFIG" --dry-run --jobs "$1"; }

# One after the other, so that what else the machine does hits both alike.
beside() { # beside FIRST SECOND: sets A and B, their medians
    : >"$WORK/a" && : >"$WORK/b"
    for ((run = 0; run < RUNS; run++)); do
        "$1" && echo "$WALL" >>"$WORK/a"
        "$2" && echo "$WALL" >>"$WORK/b"
    done
    A=$(median <"$WORK/a") B=$(median <"$WORK/b")
}
one_job() { dry_run 1; }
two_jobs() { dry_run 2; }
search_rg() { timed rg -c -j1 "GET [^ ]*\.(?i:$EXTENSIONS)[ ?]" "$LOG"; }

search() {
    config "$CONFIG" "$LOG" 9
    beside one_job search_rg
    row "\`backfill --dry-run --jobs 1\` against \`rg -c -j1\`" "≤ 0.5" "$(ratio "$A" "$B") ($A s, $B s)"
}

jobs_two() {
    config "$CONFIG" "$LOG" 9
    beside two_jobs one_job
    row "two jobs against one" "≤ 0.6" "$(ratio "$A" "$B") ($A s, $B s)"
}

a_second() { awk -v n="$1" -v s="$2" 'BEGIN { printf "%.2f million/s", n / s / 1e6 }'; }

parsed() {
    # No literal in it, and of GET, 200 and not a bot's one line in a hundred.
    config "$CONFIG" "$LOG" 9 '' $'[[site.rule]]\nevent = "view"\npath = "^/[a-z]+/[0-9]{7}/"'
    beside one_job search_rg
    row "every line parsed, one job" "≥ 7 million lines/s" "$(a_second "$LINES_IN_LOG" "$A") ($A s; \`rg\` $B s)"
}

events() {
    # The first 256 MiB are enough.
    local some=$WORK/some.log
    head -c 256M "$LOG" | head -n -1 >"$some"
    into_the_cache "$some"
    config "$CONFIG" "$some" 9 '' $'bots = "send"\nrepeat_window = "0s"\n[[site.rule]]\nevent = "request"\nmethod = "any"\nstatus = "any"'
    beside one_job two_jobs
    row "every line an event, one job" "≥ 2.5 million events/s" "$(a_second "$(wc -l <"$some")" "$A")"
    row "the same, two jobs" "" "$(a_second "$(wc -l <"$some")" "$B")"
}

# POSTs to a sink: sets WALL, CPU, RSS, POSTS, EVENTS, DOUBLED and SECONDS_BETWEEN to those of the run with the median time.
sends() { # sends [LINES OF THE ENDPOINT]
    : >"$WORK/a"
    for ((run = 0; run < RUNS; run++)); do
        start_sink
        rm -rf "$WORK/state"
        config "$CONFIG" "$LOG" "$PORT" "${1-}"
        timed "$SILKTAIL" backfill --full-priority --config "$CONFIG" --yes
        echo "$WALL $CPU $RSS $(counts)" >>"$WORK/a"
        stop_sink
    done
    read -r WALL CPU RSS POSTS EVENTS DOUBLED SECONDS_BETWEEN < <(sort -n "$WORK/a" | awk '{ all[NR] = $0 } END { print all[int((NR + 1) / 2)] }')
}
posts_a_second() { awk -v n="$POSTS" -v s="$SECONDS_BETWEEN" 'BEGIN { printf "%d", n / s }'; }

sent() {
    sends
    row "end to end, $COUNTABLE events, one POST each, with the ledger" "≤ 1.5 s" "$WALL s, $CPU CPU s; $EVENTS of $COUNTABLE events, $DOUBLED doubled"
    row "the same, POSTs a second" "≥ 40,000" "$(posts_a_second)"
    row "the same, peak RSS" "≤ 24 MiB" "$RSS MiB"
    sends "max_in_flight = 64"
    row "POSTs a second with \`max_in_flight = 64\`" "" "$(posts_a_second), $WALL s; $EVENTS of $COUNTABLE events, $DOUBLED doubled"
}

# The daemon on its logs; the first start only takes note of what is there.
run_daemon() {
    # Before it starts: what the last one said isn't its.
    : >"$WORK/run.txt"
    "$SILKTAIL" run --config "$CONFIG" 2>"$WORK/run.txt" &
    PROGRAM=$!
}
stop_daemon() {
    kill "$PROGRAM"
    wait "$PROGRAM" || true
    PROGRAM=
}
until_said() { until grep -q "$1" "$WORK/run.txt"; do sleep 0.02; done; }
until_events() { until [[ $(counts | cut -d' ' -f2) -ge $1 ]]; do sleep 0.01; done; }

live() {
    start_sink
    rm -rf "$WORK/state" "$WORK/live.log"
    head -1 "$LOG" >"$WORK/live.log"
    config "$CONFIG" "$WORK/live.log" "$PORT"
    run_daemon
    until_said ' ready'
    before=$(cpu "$PROGRAM")
    "$TOOL" feed "$LOG" "$WORK/live.log" 64M
    until_events "$COUNTABLE"
    used=$(awk -v a="$before" -v b="$(cpu "$PROGRAM")" -v bytes="$BYTES" 'BEGIN { printf "%.2f", (b - a) * 1073741824 / bytes }')
    row "CPU seconds per GiB followed live, at 64 MiB/s" "≤ 1.5" "$used ($(counts | cut -d' ' -f1) POSTs)"
    stop_daemon
    stop_sink
    rm "$WORK/live.log"
}

idle_row() { # idle_row WHAT RSS CPU
    before=$(cpu "$PROGRAM")
    sleep "$IDLE"
    used=$(awk -v a="$before" -v b="$(cpu "$PROGRAM")" -v s="$IDLE" 'BEGIN { printf "%.2f", (b - a) / s * 100 }')
    row "idle, $1: RSS" "≤ $2 MiB" "$(resident "$PROGRAM") MiB"
    row "idle, $1: CPU" "≤ $3 %" "$used % over $IDLE s"
}

idle() {
    start_sink
    rm -rf "$WORK/state"
    head -100 "$LOG" >"$WORK/live.log"
    config "$CONFIG" "$WORK/live.log" "$PORT"
    run_daemon
    until_said ' ready'
    idle_row "one log" 10 0.1
    stop_daemon
    stop_sink
}

many() {
    start_sink
    rm -rf "$WORK/state" "$WORK/many"
    for ((folder = 0; folder * 100 < FILES; folder++)); do mkdir -p "$WORK/many/$folder"; done
    # A hundred logs in each folder, each with lines of its own.
    head -20 "$LOG" | awk -v files="$FILES" -v many="$WORK/many" '{ lines[NR] = $0 } END {
        for (file = 0; file < files; file++) {
            name = many "/" int(file / 100) "/" file ".access.log"
            for (i = 1; i <= NR; i++) { line = lines[i]; gsub("/en/", "/en/" file "/", line); print line >name }
            close(name)
        }
    }'
    config "$CONFIG" "$WORK/many/*/*.access.log" "$PORT" 'linger = "0s"'
    began=$(now)
    run_daemon
    until_said ' ready'
    row "first start, $FILES logs" "" "$(since "$began") s"
    stop_daemon
    sed -n 38p "$LOG" >>"$WORK/many/$((FILES / 200))/$((FILES / 2)).access.log"
    began=$(now)
    run_daemon
    until_events 1
    row "start to first followed line, $FILES logs with positions" "≤ 1 s" "$(since "$began") s"
    sleep 5
    idle_row "$FILES logs" 20 0.3
    stop_daemon
    stop_sink
    rm -r "$WORK/many"
}

latency() {
    rm -rf "$WORK/state"
    head -1 "$LOG" >"$WORK/live.log"
    coproc MEASURE { "$TOOL" latency "$WORK/live.log" 1000; }
    local pid=$MEASURE_PID
    read -r PORT <&"${MEASURE[0]}"
    config "$CONFIG" "$WORK/live.log" "$PORT" 'linger = "0s"'
    run_daemon
    until_said ' ready'
    echo >&"${MEASURE[1]}"
    read -r line <&"${MEASURE[0]}"
    row "append to POST, \`linger = \"0s\"\`" "median ≤ 1 ms, 99 % ≤ 5 ms" "$line"
    stop_daemon
    kill "$pid"
    wait "$pid" 2>/dev/null || true
}

binary() {
    row "release binary, stripped" "≤ 9 MiB" "$(awk -v b="$(stat -c %s "$SILKTAIL")" 'BEGIN { printf "%.1f MiB", b / 1048576 }')"
}

echo "$("$SILKTAIL" --version); $LINES_IN_LOG lines, $COUNTABLE countable, $BYTES bytes; medians of $RUNS runs; $(nproc) cores"
echo
row what target measured
echo '| --- | --- | --- |'
(($#)) || set -- "${ALL[@]}"
for name in "$@"; do
    case $name in
    jobs) jobs_two ;;
    search | parsed | events | sent | live | idle | many | latency | binary) "$name" ;;
    *) echo "unknown: $name" >&2 && exit 2 ;;
    esac
done
