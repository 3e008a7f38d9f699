#!/usr/bin/env bash
# The service, tried for real: a Debian of its own is booted with systemd, and in it silktail is installed from its .deb
# beside a real nginx, used as the README says, reloaded, killed, hung, upgraded, removed and purged. Every file that is
# downloaded on the way has to arrive as one event: none lost, none twice.
#
#     packaging/nspawn-test.sh [DEB]        as root; without DEB the one that packaging/build.sh made
#
# It needs systemd-nspawn (Debian: systemd-container), debootstrap and, the first time, a Debian mirror: the one that
# apt is set up with. Without them it says that it was skipped; with CI=true it fails then. The Debian is kept beside the
# packages for the next run. It has no network but its own loopback. About two minutes, and two more at first.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
work=${CARGO_TARGET_DIR:-$here/target}

skip() {
    echo "SKIPPED: packaging/nspawn-test.sh has tested nothing: $*" >&2
    [[ ${CI:-} != true ]] || exit 1
    exit 0
}
((EUID == 0)) || skip "it must run as root"
for tool in systemd-nspawn debootstrap nsenter dpkg-deb pgrep; do
    command -v "$tool" >/dev/null || skip "$tool is not installed"
done
deb=${1:-$(printf '%s\n' "$work"/packages/*.deb | tail -n 1)}
[[ -f $deb ]] || skip "there is no package yet: packaging/build.sh makes it"

mkdir -p "$work/nspawn"
base=$work/nspawn/base
root=$work/nspawn/root
log=$work/nspawn/boot.log
config=$root/etc/silktail/config.toml
nspawn=
step=start

finish() {
    local status=$?
    # Whatever stopped the test stops neither its end nor its report.
    set +e
    if [[ -n $nspawn ]]; then
        if ((status)) && [[ -n ${leader-} ]]; then
            echo "FAILED at: $step" >&2
            inside systemctl --no-pager --full status silktail.service >&2
            inside journalctl --no-pager --lines 60 >&2
        fi
        # SIGTERM lets the machine shut down in order.
        kill -TERM "$nspawn" 2>/dev/null
        wait "$nspawn"
    fi
    rm -rf "$root"
    [[ $step == done ]] && echo "nspawn-test: everything holds"
    exit "$status"
}
trap finish EXIT

say() {
    step=$*
    printf '%4d s  %s\n' "$SECONDS" "$*"
}
# wait_for SECONDS COMMAND…: asks again until it holds.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then
            echo "waited in vain for: $*" >&2
            return 1
        fi
        sleep 0.1
    done
}
inside() { nsenter --target "$leader" --all -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"; }
# A script in there, which fails with its first failing command.
within() { inside bash -euo pipefail -c "$1"; }
property() { inside systemctl show --property "$1" --value "${2:-silktail.service}"; }
is() { [[ $(property "$1" "${3:-silktail.service}") == "$2" ]]; }
install_deb() { within "apt-get install --yes $1 </dev/null >/root/apt.log 2>&1 || { cat /root/apt.log; exit 1; }"; }
refuses() { ! "$@"; }

# The commands of a section of a document, as they stand there.
documented() { # documented FILE SECTION
    awk -v section="## $2" '
        /^```/ { open = !open; shell = open && $0 == "```sh"; next }
        open { if (here && shell) print; next }
        /^## / { here = $0 == section }' "$here/$1"
}
# Does what a line says, in a directory.
follow_line() { # follow_line DIRECTORY LINE
    echo "        $ $2"
    within "cd $1; $2" </dev/null >"$work/nspawn/said" 2>&1 || { cat "$work/nspawn/said" >&2 && return 1; }
}
# Follows a section to the letter; programs aren't built in there.
follow() { # follow FILE SECTION DIRECTORY
    local line lines
    mapfile -t lines < <(documented "$1" "$2" | grep -v '^cargo ')
    ((${#lines[@]})) || { echo "$1 has no commands under: $2" >&2 && return 1; }
    for line in "${lines[@]}"; do follow_line "$3" "$line"; done
}

wanted=()
# A visitor downloads a file, which is an event.
download() {
    wanted+=("$1")
    within "echo x >/var/www/html/$1.pdf; curl --silent --fail --output /dev/null --user-agent \
        'Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0' http://127.0.0.1/$1.pdf"
}
arrived() { grep --quiet "/$1\.pdf" "$root/root/posts"; }
endpoint_up() {
    inside systemd-run --quiet --unit endpoint --property StandardOutput=append:/root/posts \
        --property StandardError=append:/root/endpoint.log silktail receive
}
endpoint_down() { inside systemctl stop endpoint.service; }

packages=systemd,systemd-sysv,dbus,nginx-light,logrotate,curl,ca-certificates,man-db,procps,sudo
if [[ ! -e $base/complete || $(<"$base/complete") != "$packages" ]]; then
    say "a Debian, for this run and later ones"
    rm -rf "$base"
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
    mirror=$(apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 2>/dev/null |
        awk -v codename="$codename" '$1 == codename && $2 == "main" { print $3; exit }')
    debootstrap --variant=minbase --include="$packages" "$codename" "$base" ${mirror:+"$mirror"} >"$log" 2>&1 ||
        skip "debootstrap failed: $(tail -n 1 "$log")"
    echo "$packages" >"$base/complete"
fi

say "boot"
rm -rf "$root"
cp -a --reflink=auto "$base" "$root"
cp "$deb" "$root/root/"
: >"$root/root/posts"
systemd-nspawn --directory "$root" --boot --register=no --keep-unit --private-network --console=read-only --quiet \
    </dev/null >"$log" 2>&1 &
nspawn=$!
has_leader() { leader=$(pgrep --parent "$nspawn" --newest) && [[ $(cat "/proc/$leader/comm") == systemd ]]; }
wait_for 60 has_leader
answers() { inside systemctl show --property Version; }
wait_for 60 answers
wait_for 60 is ActiveState active nginx.service

freshly_installed() {
    say "  installed: the user, the manual, nothing enabled or running"
    within 'id silktail | grep --quiet adm
        [[ $(stat --format "%U %G %a" /etc/silktail/config.toml /etc/silktail /var/lib/silktail | xargs) == \
            "root silktail 640 root silktail 2750 silktail silktail 700" ]]
        dpkg-query --show --showformat "\${Conffiles}" silktail | grep --quiet /etc/silktail/config.toml
        man --where silktail silktail-backfill silktail-rejected-retry silktail.toml >/dev/null
        silktail --version >/dev/null
        ! systemctl is-enabled --quiet silktail && ! systemctl is-active --quiet silktail'

    say "  an empty configuration is refused once, and not tried again"
    refuses inside systemctl start silktail.service 2>/dev/null
    is Result exit-code && is ExecMainStatus 2 && is NRestarts 0 && is ActiveState failed
    inside systemctl reset-failed silktail.service
}
# What the reader does in an editor; the endpoint is this machine's own.
fill_in() {
    sed -i -e 's|^url = .*|url = "http://127.0.0.1:8099/v1/events"\nlinger = "50ms"\nretry_max = "2s"|' \
        -e 's|^base_url = .*FILL IN.*|base_url = "https://docs.example.org"|' \
        -e 's|^property_key = .*FILL IN.*|property_key = "8bce2be8c07a84a70e7104634b42878b"|' "$config"
}

say "the README, to the letter"
started=$SECONDS
mapfile -t lines < <(documented README.md "Set it up")
for line in "${lines[@]}"; do
    if [[ $line == *" status" ]]; then
        download first
        wait_for 30 arrived first
        say "  first event $((SECONDS - started)) s after the first step"
    fi
    follow_line /root "$line"
    case $line in
    *"apt install"*) freshly_installed ;;
    *" init "*) fill_in && endpoint_up ;;
    *" enable --now "*) is ActiveState active && is SubState running ;;
    esac
done
arrived first

say "what the process may do: nothing that it doesn't need"
pid=$(property MainPID)
within "grep --quiet '^CapEff:.*0000000000000000$' /proc/$pid/status
    grep --quiet '^CapBnd:.*0000000000000000$' /proc/$pid/status
    grep --quiet '^NoNewPrivs:.*1$' /proc/$pid/status
    grep --quiet '^Seccomp:.*2$' /proc/$pid/status
    [[ \$(stat --format %U /proc/$pid) == silktail ]]"

say "reload: a wrong configuration is refused and the old one goes on; a right one is taken"
cp "$config" "$work/nspawn/right.toml"
sed -i 's/^logs/lgos/' "$config"
refuses inside systemctl reload silktail.service 2>/dev/null
download refused
wait_for 30 arrived refused
cat "$work/nspawn/right.toml" >"$config"
cat >>"$config" <<'TOML'

[[site]]
name = "shop"
base_url = "https://shop.example.org"
property_key = "0f0e0d0c0b0a09080706050403020100"
logs = ["/var/log/httpd/*.log"]
format = "combined"
TOML
inside systemctl reload silktail.service
said() { inside journalctl --unit silktail.service --grep "$1" --quiet; }
wait_for 30 said "following by the new configuration"
download reloaded
wait_for 30 arrived reloaded
is MainPID "$pid"

say "rotation by the distribution's own logrotate"
inside logrotate --force /etc/logrotate.d/nginx
download rotated
wait_for 30 arrived rotated

say "SIGKILL: started again, and going on"
inside systemctl kill --signal KILL silktail.service
restarted() { is ActiveState active && [[ $(property NRestarts) -ge $1 ]]; }
download killed
wait_for 30 restarted 1
wait_for 30 arrived killed

say "an outage is not a hang: two watchdog times without an endpoint"
install -D /dev/stdin "$root/etc/systemd/system/silktail.service.d/watchdog.conf" <<'UNIT'
[Service]
WatchdogSec=15s
UNIT
within 'systemctl daemon-reload && systemctl restart silktail.service'
pid=$(property MainPID)
endpoint_down
download outage
outlasted() { ((SECONDS >= outage + 30)); }
outage=$SECONDS
wait_for 40 outlasted
is MainPID "$pid" && is ActiveState active
endpoint_up
wait_for 60 arrived outage

say "a hang is one: the watchdog ends it, and it goes on"
download waiting
wait_for 30 arrived waiting
inside systemctl kill --kill-whom main --signal STOP silktail.service
download hung
bitten() { [[ $(property MainPID) != "$pid" ]] && is ActiveState active; }
wait_for 60 bitten
said "Watchdog timeout"
wait_for 30 arrived hung
within 'rm /etc/systemd/system/silktail.service.d/watchdog.conf && systemctl daemon-reload'

say "stop, in order; what was written and rotated meanwhile is sent at the next start"
stopping=$SECONDS
inside systemctl stop silktail.service
is Result success && ((SECONDS - stopping < 30))
download stopped
inside logrotate --force /etc/logrotate.d/nginx
download stopped-and-rotated
inside systemctl start silktail.service
wait_for 30 arrived stopped
wait_for 30 arrived stopped-and-rotated

say "keys as credentials, by the drop-in"
examples=/usr/share/doc/silktail/examples
within "umask 077
    grep --only-matching --max-count 1 '[0-9a-f]\{32\}' /etc/silktail/config.toml >/root/docs.key
    sed -i '0,/^property_key.*/s//property_key_file = \"docs.key\"/' /etc/silktail/config.toml"
follow docs/getting-started.md "Keys that only root can read" /root
within "[[ \$(stat --format '%U %a' /etc/silktail/docs.key) == 'root 600' ]]; silktail check >/dev/null"
download credential
wait_for 30 arrived credential
inside systemctl reload silktail.service
download credential-reloaded
wait_for 30 arrived credential-reloaded

say "a status page that asks for a token"
follow docs/status.md "The status page and its neighbours" /root
printf '\n[status]\nlisten = "127.0.0.1:9464"\ntoken_file = "status.token"\n' >>"$config"
within 'silktail check >/dev/null && systemctl restart silktail.service
    asks() { curl --silent --output /dev/null --write-out "%{http_code}" "$@" http://127.0.0.1:9464/healthz; }
    [[ $(asks) == 401 && $(asks --user "any:$(</etc/silktail/status.token)") == 200 ]]'

say "logs that are root's alone, by the drop-in"
within "install -d -m 0700 /var/log/httpd
    line=\$(grep rotated.pdf /var/log/nginx/access.log* | head -n 1 | cut -d: -f2-)
    install -m 0600 <(echo \"\${line/stopped-and-rotated/closed}\") /var/log/httpd/closed.log"
wanted+=(closed)
refuses inside setpriv --reuid silktail --regid silktail --init-groups cat /var/log/httpd/closed.log 2>/dev/null
download open
wait_for 30 arrived open
refuses arrived closed
within "install -D -m 0644 $examples/read-all-logs.conf /etc/systemd/system/silktail.service.d/read-all-logs.conf
    systemctl daemon-reload && systemctl restart silktail.service"
wait_for 30 arrived closed

say "a second instance, by the template"
cat >"$root/etc/silktail/shop.toml" <<'TOML'
state_dir = "/var/lib/silktail-shop"

[endpoint]
url = "http://127.0.0.1:8099/v1/events"

[[site]]
name = "shop"
base_url = "https://shop.example.org"
property_key = "0f0e0d0c0b0a09080706050403020100"
logs = ["/var/log/nginx/access.log"]
TOML
follow docs/getting-started.md "Several instances" /root
download both
in_both() { [[ $(grep --count '/both\.pdf' "$root/root/posts") == 2 ]]; }
wait_for 30 in_both
inside silktail --config /etc/silktail/shop.toml status >/dev/null
inside systemctl stop silktail@shop.service

say "a copy of the state"
follow docs/upgrading.md "The state" /root
within '[[ -s /var/lib/silktail.before/silktail.db ]] && rm -r /var/lib/silktail.before'
download copied
wait_for 30 arrived copied

say "upgrade while it runs: started again, still enabled, the configuration untouched"
dpkg-deb --raw-extract "$deb" "$root/root/next"
sed -i 's/^Version: .*/&+next/' "$root/root/next/DEBIAN/control"
mkdir "$root/root/newer"
dpkg-deb --build --root-owner-group -Znone "$root/root/next" "$root/root/newer/silktail_next.deb" >/dev/null
pid=$(property MainPID)
sum=$(sha256sum <"$config")
download before-upgrade
follow docs/upgrading.md "With the package" /root/newer
wait_for 30 is ActiveState active
[[ $(property MainPID) != "$pid" && $(sha256sum <"$config") == "$sum" ]]
inside systemctl is-enabled --quiet silktail.service
refuses inside systemctl is-active --quiet silktail@shop.service
download upgraded
wait_for 30 arrived before-upgrade
wait_for 30 arrived upgraded

say "removed and installed again: it goes on where it was"
within 'apt-get remove --yes silktail >/dev/null 2>&1'
refuses within '[[ -e /usr/bin/silktail ]] || systemctl is-active --quiet silktail'
[[ -s $config && -e $root/var/lib/silktail/silktail.db ]]
inside systemctl stop endpoint.service
download removed
install_deb "/root/${deb##*/}"
endpoint_up
inside systemctl start silktail.service
wait_for 30 arrived removed

say "every download is one event"
missing=0
for name in "${wanted[@]}"; do
    times=$(grep --only-matching "/$name\.pdf\"}" "$root/root/posts" | wc -l)
    [[ $name == both ]] && times=$((times - 1))
    if ((times != 1)); then
        echo "$name arrived $times times" >&2
        missing=1
    fi
done
((missing == 0))

say "purge: neither state nor configuration is left, the logs are"
endpoint_down
within 'apt-get purge --yes silktail >/dev/null 2>&1
    shopt -s nullglob
    left=(/etc/silktai[l] /var/lib/silktail* /usr/bin/silktai[l] /etc/systemd/system/*/silktail*.service)
    ((${#left[@]} == 0))
    [[ -s /var/log/nginx/access.log ]]'

say "without a package, by the same program"
# Drop-ins are the administrator's, and outlive a purge.
within 'userdel silktail; rm -r /etc/systemd/system/silktail.service.d; rm /root/posts'
install -D "$root/root/next/usr/bin/silktail" "$root/root/target/release/silktail"
install -D -t "$root/root/systemd" -m 0644 "$here"/systemd/*
follow docs/getting-started.md "From source" /root
: >"$root/root/posts"
within 'silktail init >/etc/silktail/config.toml'
fill_in
endpoint_up
within 'silktail check >/dev/null && systemctl start silktail.service'
download without
wait_for 30 arrived without
follow docs/upgrading.md "Without a package" /root
download without-upgraded
wait_for 30 arrived without-upgraded
step=done
