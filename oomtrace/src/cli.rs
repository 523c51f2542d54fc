//! The command line.

mod beside;
mod explain;
mod filters;
mod log;
mod recorded;
mod report;
mod show;
mod tags;
pub(crate) mod values;

use std::{path::PathBuf, time::Duration};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PathBufValueParser, TypedValueParser},
};

pub use beside::Beside;
pub use explain::Explain;
pub use filters::{Filters, ScopeChoice};
pub use log::Log;
pub use recorded::{RecordedLines, Taken};
pub use report::Report;
pub use show::Show;
pub use tags::{labels, tags};

use crate::{
    containers::Runtime,
    event::CgroupVersion,
    host::process::CommandLineChoice,
    sources::{
        earlier_kills::Since,
        probe::{DEFAULT_DIR, HookChoice},
        signal_kills::SignalChoice,
    },
};

const AFTER_HELP: &str = "Exit codes: 0 success, 1 failure, 2 wrong usage, 65 part of a log or file was not understood, 69 this \
                          kernel cannot be traced, 77 a privilege is missing.\n\nEach option of `run` can also be set in the \
                          environment: OOMTRACE_FILE=PATH is --file PATH, OOMTRACE_NO_VERDICT=1 is --no-verdict. The command line \
                          overrides the environment.";

/// Reports every OOM kill on this host, one line each: which process died, in which container, whose limit was reached.
#[derive(Debug, Parser)]
#[command(name = "oomtrace", version, args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// The command; `run` if none is given.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `run`.
    #[command(flatten)]
    pub run: Run,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace OOM kills and print a line for each. This is the default.
    Run(Box<Run>),
    /// Print the OOM kills that the kernel's log reports: of this host as far back as the log reaches, or of a saved log. Needs no eBPF.
    Log(Log),
    /// Print recorded events as text: files that `run` wrote, also rotated and compressed ones.
    Show(Show),
    /// Print all that recorded events say about one kill, on one card: by default the last.
    Explain(Explain),
    /// Count recorded events: kills by service, by time and by host, what runtimes missed, what was lost. As text or as an HTML page.
    Report(Report),
    /// Print what this host offers and what it lacks. Exits with 0 if `run` can work.
    Check(Check),
    /// List the containers of this host with the names that a kill in them would have. A container without a running process is listed
    /// too, if its cgroup exists.
    Containers(Containers),
    /// Make an OOM kill of a child process in a small cgroup, print the event, and compare it with the kernel's log, on standard error.
    /// Exits with 1 if a fact differs. Needs root.
    Simulate(Simulate),
    /// Detach and remove the programs that `run --pin` left attached.
    Detach {
        /// The directory that was given to `run --pin`.
        #[arg(value_name = "DIR", default_value = DEFAULT_DIR)]
        dir: PathBuf,
    },
    /// Print the JSON Schema of the output.
    Schema,
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print a manual page.
    Man {
        /// The command that the page is about; without it, oomtrace as a whole.
        #[arg(value_parser = values::command_name)]
        command: Option<String>,
    },
    /// Print the events of records that `run --record` wrote.
    #[command(hide = true)]
    Replay(Replay),
    /// The child of `run` that reads what a user can slow down.
    #[command(hide = true)]
    ReadFiles,
    /// The child of `simulate`.
    #[command(hide = true)]
    SimulateVictim {
        /// How many bytes it uses up.
        bytes: usize,
    },
}

/// Options of `run`.
#[derive(Args, Clone, Debug, Default)]
pub struct Run {
    /// How to write events [default: text on a terminal, json elsewhere].
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    /// Append events to this file instead of printing them. SIGHUP reopens it.
    #[arg(long, value_name = "PATH", value_parser = PathBufValueParser::new().try_map(values::not_dash))]
    pub file: Option<PathBuf>,
    /// Rotate the file before it gets larger than this (`10MiB`): PATH becomes PATH.1, and PATH.1 becomes PATH.2.
    #[arg(long, value_name = "BYTES", value_parser = values::file_size, requires = "file")]
    pub file_max_size: Option<u64>,
    /// How many rotated files to keep.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = values::within(1..=999u32), requires = "file_max_size")]
    pub file_keep: u32,
    /// Mode of files that are created, also of rotated ones: `640` lets their group read them.
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = values::file_mode, requires = "file")]
    pub file_mode: u32,
    /// Group of files that are created, by name or number. Without CAP_CHOWN this process must be in the group.
    #[arg(long, value_name = "GROUP", requires = "file")]
    pub file_group: Option<String>,
    /// First report the kills in the kernel's log: all since boot (`boot`), or those not older than `30m`. This has no effect if
    /// the run takes over pinned programs, because the first run with these reported earlier kills.
    #[arg(long, value_name = "boot|TIME", value_parser = values::since)]
    pub since: Option<Since>,
    /// End after this many kills. Only `oom_kill` lines count, and not those of processes that were exiting already.
    #[arg(long, value_name = "N", value_parser = values::within(1..=u64::MAX))]
    pub count: Option<u64>,
    /// End after this time: `30s`, `5m`, `2h`, `500ms`.
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub timeout: Option<Duration>,
    /// Function hook on the OOM killer. It reads facts that the tracepoint does not have.
    #[arg(long, value_enum, default_value_t)]
    pub hook: HookChoice,
    /// Size of the ring buffer for kills, a power of two. Each kill takes 1 to 4 KiB until it is printed.
    #[arg(long, value_name = "BYTES", default_value = "512KiB", value_parser = values::ring_size)]
    pub ring_size: RingSize,
    /// How much of a victim's command line is reported. A command line can contain passwords.
    #[arg(long, value_enum, default_value_t)]
    pub command_line: CommandLineChoice,
    /// Directory of a container runtime's state, if it is not found otherwise: `docker=/data/docker`.
    #[arg(long, value_name = "RUNTIME=DIR", value_parser = values::runtime_root)]
    pub runtime_root: Vec<(Runtime, PathBuf)>,
    /// Also report this label of a container, at most 16 labels. Labels of Compose, Swarm, Nomad and ECS are always reported.
    #[arg(long, value_name = "KEY", value_delimiter = ',', value_parser = tags::label)]
    pub label: Vec<String>,
    /// Add this constant to every line, under `tags`: `cluster=blue`. At most 16 tags and 512 bytes in all.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = tags::tag)]
    pub tag: Vec<(String, String)>,
    /// Which SIGKILLs are reported that the OOM killer did not send: `exit 137` that is not out of memory.
    #[arg(long, value_enum, default_value_t)]
    pub signals: SignalChoice,
    /// How many containers, units and limited cgroups have their memory's history kept, for `before` of an incident, `limit_near` and
    /// `usage` lines: about 1.2 KiB each. `off` takes no samples.
    #[arg(long, value_name = "off|N", default_value = "1024", value_parser = values::history)]
    pub history: usize,
    /// The time between two samples, for tests.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::duration, hide = true)]
    pub history_interval: Duration,
    /// Do not ask the container's runtime, some seconds after a kill, whether it noticed it.
    #[arg(long)]
    pub no_verdict: bool,
    /// Keep the programs attached when this process ends, and take over those of an earlier run. No kill between the two runs is
    /// lost. DIR is on a bpffs. `oomtrace detach` removes the programs.
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
    /// Make the eBPF programs log each event to standard error.
    #[arg(long)]
    pub debug: bool,
    /// Write the raw records to this file.
    #[arg(long, value_name = "PATH", hide = true)]
    pub record: Option<PathBuf>,
    /// Other outputs.
    #[command(flatten)]
    pub beside: Beside,
    /// Which events are printed.
    #[command(flatten)]
    pub filters: Filters,
}

/// Options of `check`.
#[derive(Args, Debug)]
pub struct Check {
    /// How to write the report.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    pub output: Form,
    /// Test the function hooks with an OOM kill of a child process in a small cgroup. The kernel logs and counts this kill.
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
    /// How to write the containers; `json` is one line for each.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    pub output: Form,
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
    /// The file that `run --record` wrote.
    pub records: PathBuf,
    /// A copy of the root directory of the recorded host: containers get names from its runtimes' files.
    /// Without it no file is read, and the lines are the same on every host.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// How to write events.
    #[arg(short, long, value_enum, default_value_t = Output::Json)]
    pub output: Output,
    /// Where memory cgroups were on the recorded host: `v1`, `v2`, `hybrid`.
    #[arg(long, default_value = "v2", value_parser = values::cgroup_version)]
    pub cgroup: CgroupVersion,
    /// Page size of the recorded host, in bytes.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u64).range(4096..=65536))]
    pub page_size: u64,
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// JSON Lines; `oomtrace schema` describes them.
    Json,
    /// JSON Lines in the Elastic Common Schema.
    Ecs,
    /// For people.
    Text,
}

/// How what is no event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For a program.
    Json,
    /// For a person to read.
    Text,
}

/// Size of a ring buffer, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSize(pub u32);

impl Default for RingSize {
    fn default() -> Self {
        Self(512 << 10)
    }
}
