#!/usr/bin/env bash
# Runs silktail, ripgrep and whatever is installed of syslog-ng, Fluent Bit, Vector and GoAccess on one job: find the
# downloads in a log and bring them to an endpoint on this machine. Prints one table.
#
#     cargo build --release && benches/compare.sh          (SIZE=64M for a quick run; see common.sh)
#
# ripgrep only counts the lines, GoAccess only makes its report: they have no endpoint.
set -euo pipefail
cd "$(dirname "$0")/.."
source benches/common.sh
WANTED="GET [^ ]*\.(?i:$EXTENSIONS)[ ?][^\"]*\" 200 "

row() { # row NAME WALL CPU RSS POSTS EVENTS DOUBLED
    local speed
    speed=$(awk -v b="$BYTES" -v s="$2" 'BEGIN { printf "%.3f", b / s / 1e9 }')
    printf '| %-44s | %8s | %7s | %7s | %8s | %6s | %7s | %7s |\n' "$1" "$2" "$3" "$speed" "$4" "$5" "$6" "$7"
}

# The median of some runs, by their time.
best_of() { # best_of NAME FUNCTION: the function sets WALL CPU RSS COUNTS
    local name=$1 function=$2
    : >"$WORK/runs"
    for ((run = 0; run < RUNS; run++)); do
        "$function"
        echo "$WALL $CPU $RSS $COUNTS" >>"$WORK/runs"
    done
    # shellcheck disable=SC2046 # the fields of one line
    row "$name" $(sort -n "$WORK/runs" | awk '{ all[NR] = $0 } END { print all[int((NR + 1) / 2)] }' | cut -d' ' -f1-6)
}

silktail_backfill() {
    start_sink
    rm -rf "$WORK/state"
    config "$WORK/compare.toml" "$LOG" "$PORT"
    timed "$SILKTAIL" backfill --full-priority --config "$WORK/compare.toml" --yes
    COUNTS=$(counts)
    stop_sink
}
ripgrep() {
    timed rg -c -j1 "$WANTED" "$LOG"
    COUNTS="- - -"
}
goaccess_report() {
    timed goaccess "$LOG" --log-format=COMBINED --no-global-config -o "$WORK/goaccess.json"
    COUNTS="- - -"
}
# A program that doesn't end by itself: until nothing more comes.
until_quiet() { # until_quiet COMMAND...
    local began last="" quiet=0
    began=$(now)
    "$@" >"$WORK/stdout" 2>"$WORK/stderr" &
    PROGRAM=$!
    while ((quiet < 100)); do
        sleep 0.05
        kill -0 "$PROGRAM" 2>/dev/null || { cat "$WORK/stderr" >&2; exit 1; }
        COUNTS=$(counts)
        if [[ $COUNTS != "$last" || ${COUNTS%% *} == 0 ]]; then
            last=$COUNTS quiet=0 WALL=$(since "$began") CPU=$(cpu "$PROGRAM")
            [[ ${WALL%.*} -lt 300 ]] || break
        fi
        quiet=$((quiet + 1))
    done
    RSS=$(peak "$PROGRAM")
    kill "$PROGRAM"
    wait "$PROGRAM" 2>/dev/null || true
    PROGRAM=
    stop_sink
}
syslog_ng() {
    start_sink
    rm -rf "$WORK/syslog-ng" && mkdir "$WORK/syslog-ng"
    cat >"$WORK/syslog-ng.conf" <<END
@version: $(syslog-ng --version | sed -n 's/^Config version: *//p')
options { stats-freq(0); log-fifo-size(200000); };
source lines { file("$LOG" flags(no-parse) read-old-records(yes) log-iw-size(100000) log-fetch-limit(10000) follow-freq(0.1)); };
filter wanted { match('$WANTED' value("MESSAGE") type("pcre")); };
destination endpoint { http(url("http://127.0.0.1:$PORT/") method("POST") body("\$MESSAGE") batch-lines(1000)
    batch-timeout(100) workers(2)); };
log { source(lines); filter(wanted); destination(endpoint); flags(flow-control); };
END
    until_quiet syslog-ng -F -f "$WORK/syslog-ng.conf" -R "$WORK/syslog-ng/persist" -c "$WORK/syslog-ng/ctl" -p "$WORK/syslog-ng/pid"
}
fluent_bit() {
    start_sink
    cat >"$WORK/fluent-bit.conf" <<END
[SERVICE]
    Flush 0.2
    Log_Level error
[INPUT]
    Name tail
    Path $LOG
    Read_from_Head true
    Buffer_Chunk_Size 1M
    Buffer_Max_Size 4M
    Static_Batch_Size 50M
[FILTER]
    Name grep
    Match *
    Regex log $WANTED
[OUTPUT]
    Name http
    Match *
    Host 127.0.0.1
    Port $PORT
    Format json_lines
END
    until_quiet fluent-bit -c "$WORK/fluent-bit.conf"
}
vector_file() {
    start_sink
    rm -rf "$WORK/vector" && mkdir "$WORK/vector"
    cat >"$WORK/vector.toml" <<END
data_dir = "$WORK/vector"
[sources.log]
type = "file"
include = ["$LOG"]
read_from = "beginning"
[transforms.wanted]
type = "filter"
inputs = ["log"]
condition = 'match(string!(.message), r''$WANTED'')'
[sinks.endpoint]
type = "http"
inputs = ["wanted"]
uri = "http://127.0.0.1:$PORT/"
encoding.codec = "json"
framing.method = "newline_delimited"
END
    until_quiet vector --quiet --config "$WORK/vector.toml"
}

echo "$LINES_IN_LOG lines, $COUNTABLE countable, $BYTES bytes; medians of $RUNS runs; $(nproc) cores"
echo
printf '| %-44s | %8s | %7s | %7s | %8s | %6s | %7s | %7s |\n' program seconds 'CPU s' GB/s 'RSS MiB' POSTs events doubled
echo '| --- | --- | --- | --- | --- | --- | --- | --- |'
best_of "$("$SILKTAIL" --version), backfill with its ledger" silktail_backfill
if command -v rg >/dev/null; then best_of "$(rg --version | sed -n 1p | cut -d' ' -f1-2), counts the lines" ripgrep; fi
if command -v syslog-ng >/dev/null; then best_of "$(syslog-ng --version | sed -n '1s/ (.*//p')" syslog_ng; fi
if command -v fluent-bit >/dev/null; then best_of "$(fluent-bit --version | sed -n 1p)" fluent_bit; fi
if command -v vector >/dev/null; then best_of "$(vector --version | cut -d' ' -f1-2)" vector_file; fi
if command -v goaccess >/dev/null; then best_of "$(goaccess --version | sed -n 1p | sed 's,\.$,,'), its report" goaccess_report; fi
