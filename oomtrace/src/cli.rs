//! What can be typed.

mod beside;
mod log;
mod tags;
mod values;

use std::{path::PathBuf, time::Duration};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{NonEmptyStringValueParser, PathBufValueParser, TypedValueParser},
};

pub use beside::Beside;
pub use log::Log;
pub use tags::{labels, tags};

use crate::{
    containers::Runtime,
    event::{CgroupVersion, Scope},
    host::process::CommandLineChoice,
    sources::{
        earlier_kills::Since,
        probe::{DEFAULT_DIR, HookChoice},
    },
};

const AFTER_HELP: &str = "Exit codes: 0 as asked, 1 something failed while running, 2 not understood, 69 this kernel cannot \
                          be traced, 77 a privilege is missing.\n\nEach option of `run` can also come from the environment: \
                          OOMTRACE_FILE=PATH is --file PATH, OOMTRACE_NO_VERDICT=1 is --no-verdict. A typed option goes first.";

/// Tells of every OOM kill on this host, one line each: who died, in which container, whose limit fired.
#[derive(Debug, Parser)]
#[command(name = "oomtrace", version, args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// Without a command: `run`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `run`.
    #[command(flatten)]
    pub run: Run,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace OOM kills and print a line for each (the default).
    Run(Box<Run>),
    /// Print the OOM kills that the kernel's log reports: this host's since its boot, or a saved log. Needs no eBPF.
    Log(Log),
    /// Say what this host offers and lacks. Exits with 0 if `run` can work.
    Check(Check),
    /// List the containers of this host as a kill in them would be told.
    Containers(Containers),
    /// Kill a child of its own in a scratch cgroup, show the event, and compare it with the kernel's log.
    Simulate(Simulate),
    /// Detach what `run --pin` left attached, and remove it.
    Detach {
        /// As given to `run --pin`.
        #[arg(value_name = "DIR", default_value = DEFAULT_DIR)]
        dir: PathBuf,
    },
    /// Print the JSON Schema of the output.
    Schema,
    /// Print completions for a shell.
    Completions {
        /// For which.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man {
        /// Of this command; else of oomtrace as a whole.
        #[arg(value_parser = values::command_name)]
        command: Option<String>,
    },
    /// Print the events of records that `run --record` kept.
    #[command(hide = true)]
    Replay(Replay),
    /// The child of `run` that reads what a user may slow down.
    #[command(hide = true)]
    ReadFiles,
    /// The child of `simulate`.
    #[command(hide = true)]
    SimulateVictim {
        /// Bytes to use up.
        bytes: usize,
    },
}

/// Options of `run`.
#[derive(Args, Clone, Debug, Default)]
pub struct Run {
    /// How to write events [default: text on a terminal, json elsewhere].
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    /// Append to this file instead of printing; reopened on SIGHUP.
    #[arg(long, value_name = "PATH", value_parser = PathBufValueParser::new().try_map(values::not_dash))]
    pub file: Option<PathBuf>,
    /// Put the file aside before it gets larger than this (`10MiB`): it becomes PATH.1, which becomes PATH.2.
    #[arg(long, value_name = "BYTES", value_parser = values::file_size, requires = "file")]
    pub file_max_size: Option<u64>,
    /// How many files that were put aside are kept.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=999), requires = "file_max_size")]
    pub file_keep: u32,
    /// Permission bits of files that are made, of rotated ones too: `640` lets their group read them.
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = values::file_mode, requires = "file")]
    pub file_mode: u32,
    /// Group of files that are made, by name or number: one that this process is in, unless it has CAP_CHOWN.
    #[arg(long, value_name = "GROUP", requires = "file")]
    pub file_group: Option<String>,
    /// First tell of the kills that the kernel's log still knows: all of them (`boot`), or those not older than `30m`.
    /// Not where pins are taken over: what came before these was the first run's to tell.
    #[arg(long, value_name = "boot|TIME", value_parser = values::since)]
    pub since: Option<Since>,
    /// Only kills in the container with this name or id (12 digits of it or more), or, as `containers` shows it, NAMESPACE/POD/NAME.
    /// A container of an unprivileged user's own runtime is meant by UID/NAME or UID/ID only.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub container: Option<String>,
    /// Only kills because this ran out.
    #[arg(long, value_enum)]
    pub scope: Option<ScopeChoice>,
    /// End after this many kills were printed: `oom_kill` lines, without those of processes that were exiting already. Not
    /// counted: `shared_mm_kill` and `memcg_oom`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after this time: `30s`, `5m`, `2h`, `500ms`.
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub timeout: Option<Duration>,
    /// Function hook on the killer, for the facts that the tracepoint does not carry.
    #[arg(long, value_enum, default_value_t)]
    pub hook: HookChoice,
    /// Bytes of the ring buffer of kills: a power of two. Each kill takes 1 to 4 KiB until it is printed.
    #[arg(long, value_name = "BYTES", default_value = "512KiB", value_parser = values::ring_size)]
    pub ring_size: RingSize,
    /// How much of a victim's command line is reported: it can hold passwords.
    #[arg(long, value_enum, default_value_t)]
    pub command_line: CommandLineChoice,
    /// Where a container runtime keeps its state, if not where it is looked for: `docker=/data/docker`.
    #[arg(long, value_name = "RUNTIME=DIR", value_parser = values::runtime_root)]
    pub runtime_root: Vec<(Runtime, PathBuf)>,
    /// Report also this label of a container; may be given 16 times. Beside it: those of Compose, Swarm, Nomad and ECS.
    #[arg(long, value_name = "KEY", value_delimiter = ',', value_parser = tags::label)]
    pub label: Vec<String>,
    /// Put this constant into every line, under `tags`: `cluster=blue`. May be given 16 times, 512 bytes in all.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = tags::tag)]
    pub tag: Vec<(String, String)>,
    /// Do not tell what a container's runtime itself says of a kill, some seconds later.
    #[arg(long)]
    pub no_verdict: bool,
    /// Stay attached when this process ends, for whatever reason, and take over what an earlier run left:
    /// no kill between the two is lost. DIR is on a bpffs. `oomtrace detach` ends it.
    #[arg(
        long,
        value_name = "DIR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = DEFAULT_DIR,
        conflicts_with = "debug"
    )]
    pub pin: Option<PathBuf>,
    /// Do not ask for real-time scheduling.
    #[arg(long)]
    pub no_realtime: bool,
    /// Let the eBPF programs log each event to standard error.
    #[arg(long)]
    pub debug: bool,
    /// Keep the raw records in this file.
    #[arg(long, value_name = "PATH", hide = true)]
    pub record: Option<PathBuf>,
    /// Outputs beside the lines.
    #[command(flatten)]
    pub beside: Beside,
}

/// Options of `check`.
#[derive(Args, Debug)]
pub struct Check {
    /// How to write it.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Try the function hooks by a kill, of a child in a scratch cgroup. The kernel logs and counts it as any other.
    #[arg(long)]
    pub kill: bool,
    /// As for `run`.
    #[arg(long, value_name = "RUNTIME=DIR", value_parser = values::runtime_root)]
    pub runtime_root: Vec<(Runtime, PathBuf)>,
}

/// Options of `containers`.
#[derive(Args, Debug)]
pub struct Containers {
    /// As for `run`.
    #[arg(long, value_name = "KEY", value_delimiter = ',', value_parser = tags::label)]
    pub label: Vec<String>,
    /// How to write them; `json` is a line each.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// As for `run`.
    #[arg(long, value_name = "RUNTIME=DIR", value_parser = values::runtime_root)]
    pub runtime_root: Vec<(Runtime, PathBuf)>,
}

/// Options of `simulate`.
#[derive(Args, Debug)]
pub struct Simulate {
    /// How to write the event [default: text on a terminal, json elsewhere].
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    /// As for `run`.
    #[arg(long, value_enum, default_value_t)]
    pub hook: HookChoice,
}

/// Options of `replay`.
#[derive(Args, Debug)]
pub struct Replay {
    /// What `run --record` wrote.
    pub records: PathBuf,
    /// A copy of the root directory of the host of the records: containers get the names that its runtimes' files have.
    /// Without it no file is read, and the lines are the same on every host.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// How to write events.
    #[arg(short, long, value_enum, default_value_t = Output::Json)]
    pub output: Output,
    /// Where memory cgroups were on the host of the records: `v1`, `v2`, `hybrid`.
    #[arg(long, default_value = "v2", value_parser = values::cgroup_version)]
    pub cgroup: CgroupVersion,
    /// Bytes of a page on the host of the records.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u64).range(4096..=65536))]
    pub page_size: u64,
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// JSON Lines; `oomtrace schema` says what is in the events.
    Json,
    /// For a person to read.
    Text,
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScopeChoice {
    /// A memory cgroup's limit.
    Memcg,
    /// The machine.
    Host,
}

impl From<ScopeChoice> for Scope {
    fn from(choice: ScopeChoice) -> Self {
        match choice {
            ScopeChoice::Memcg => Self::Memcg,
            ScopeChoice::Host => Self::Host,
        }
    }
}

/// Bytes of a ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSize(pub u32);

impl Default for RingSize {
    fn default() -> Self {
        Self(512 << 10)
    }
}
