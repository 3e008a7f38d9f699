# The user, who may read what, and nothing is started: a service without keys could only fail.
systemd-sysusers silktail.conf
if [ "$1" -eq 1 ]; then
    # Property keys will stand there. New files get the group, so that the service can read them.
    chown root:silktail /etc/silktail /etc/silktail/config.toml
    chmod 2750 /etc/silktail
    chmod 0640 /etc/silktail/config.toml
fi
# Root's first `silktail backfill` gives what it writes to the directory's owner.
install -d -o silktail -g silktail -m 0700 /var/lib/silktail
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload || :
fi
