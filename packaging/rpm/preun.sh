# At a removal; an upgrade leaves the service running until the new program is there.
if [ "$1" -eq 0 ] && [ -d /run/systemd/system ]; then
    systemctl --no-reload disable --now silktail.service || :
    systemctl stop 'silktail@*.service' || :
fi
