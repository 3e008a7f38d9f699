if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload || :
    # After an upgrade, what runs is started again and goes on from the line where the old program stopped.
    if [ "$1" -ge 1 ]; then
        systemctl try-restart silktail.service 'silktail@*.service' || :
    fi
fi
