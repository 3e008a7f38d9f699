# Shared by compare.sh and targets.sh, which source it: the tool, the log, the configurations, measuring.
#
# SIZE (1G): bytes of the log.  RUNS (5): runs of which the median is taken.  WORK: where the files lie; a disk, not a
# tmpfs.  SILKTAIL (target/release/silktail): what is measured.
SIZE=${SIZE:-1G}
RUNS=${RUNS:-5}
WORK=${WORK:-${TMPDIR:-/var/tmp}/silktail-bench}
SILKTAIL=$(realpath "${SILKTAIL:-target/release/silktail}")
EXTENSIONS='pdf|doc|docx|xls|xlsx|ppt|pptx|odt|ods|odp|rtf|csv|txt|epub|mobi|ics|vcf|zip|7z|rar|tar|gz|tgz|bz2|xz|dmg|exe|msi|pkg|deb|rpm|apk|iso'

for program in rustc curl awk /usr/bin/time; do
    command -v "$program" >/dev/null || { echo "missing: $program" >&2; exit 1; }
done
[[ -x $SILKTAIL ]] || { echo "missing: $SILKTAIL (cargo build --release)" >&2; exit 1; }
mkdir -p "$WORK"
TOOL=$WORK/tool
rustc -O --edition 2024 benches/tool/main.rs -o "$TOOL"
# Into the page cache from the disk, as old logs come there: what is still there from being written in small pieces takes
# twice as long to read.
into_the_cache() { # into_the_cache FILE
    sync "$1"
    dd if="$1" iflag=nocache count=0 status=none
    cat "$1" >/dev/null
}
LOG=$WORK/access-$SIZE.log
[[ -s $LOG ]] || "$TOOL" generate "$SIZE" 2>"$LOG.txt" >"$LOG"
into_the_cache "$LOG"
BYTES=$(stat -c %s "$LOG")
LINES_IN_LOG=$(awk '{ print $3 }' "$LOG.txt")
COUNTABLE=$(awk '{ print $5 }' "$LOG.txt")

SINK= PROGRAM=
stop_all() {
    for pid in $SINK $PROGRAM; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    SINK= PROGRAM=
}
trap stop_all EXIT

start_sink() { # sets SINK and PORT
    rm -f "$WORK/port"
    "$TOOL" sink >"$WORK/port" &
    SINK=$!
    until [[ -s $WORK/port ]]; do sleep 0.01; done
    PORT=$(head -1 "$WORK/port")
}
stop_sink() { kill "$SINK"; wait "$SINK" 2>/dev/null || true; SINK=; }
counts() { curl -s "http://127.0.0.1:$PORT/counts"; } # POSTs, distinct events, doubled, seconds between first and last

config() { # config FILE LOGS PORT [LINES OF THE ENDPOINT] [LINES OF THE SITE]
    cat >"$1" <<END
state_dir = "$WORK/state"
[endpoint]
url = "http://127.0.0.1:$3/v1/events"
${4-}
[[site]]
name = "docs"
base_url = "https://docs.example.org"
property_key = "8bce2be8c07a84a70e7104634b42878b"
logs = ["$2"]
format = "combined"
${5-}
END
}

now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.3f", b - a }'; }
median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }
# Seconds of CPU that a process has used, and the most memory that it had, in MiB.
cpu() { awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); printf "%.2f", ($12 + $13) / hz }' "/proc/$1/stat"; }
peak() { awk '/VmHWM/ { printf "%.1f", $2 / 1024 }' "/proc/$1/status"; }
resident() { awk '/VmRSS/ { printf "%.1f", $2 / 1024 }' "/proc/$1/status"; }
# Runs a command; sets WALL, CPU, RSS.
timed() {
    /usr/bin/time -o "$WORK/time" -f '%e %U %S %M' "$@" >/dev/null 2>"$WORK/stderr" || { cat "$WORK/stderr" >&2; exit 1; }
    read -r WALL user system rss <"$WORK/time"
    CPU=$(awk -v a="$user" -v b="$system" 'BEGIN { printf "%.2f", a + b }')
    RSS=$(awk -v a="$rss" 'BEGIN { printf "%.1f", a / 1024 }')
}
