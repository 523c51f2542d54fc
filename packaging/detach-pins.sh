# The programs that `run --pin` left attached go with the package.
pins=$(sed -n 's/^OOMTRACE_PIN=//p' /etc/default/oomtrace 2>/dev/null | tail -n 1)
# A value may stand in quotes.
pins=${pins#[\"\']}
pins=${pins%[\"\']}
pins=${pins:-/sys/fs/bpf/oomtrace}
if [ -d "$pins" ]; then
	/usr/bin/oomtrace detach "$pins" || echo "oomtrace: the programs pinned at $pins are still attached" >&2
fi
