# journald: OOMTRACE_JOURNAL=1 and OOMTRACE_FILE=/var/log/oomtrace/oom.jsonl in /etc/default/oomtrace. Run with systemd 252.
# The lines of all kills, byte for byte. Without --all, journalctl leaves out a field of over 4096 bytes.
journalctl OOMTRACE_TYPE=oom_kill --all -o json --output-fields=OOMTRACE_JSON
