//! Which events are printed.

use clap::{
    Args, ValueEnum,
    builder::{NonEmptyStringValueParser, PossibleValuesParser},
};

use crate::event::{Event, Scope};

/// Which events are printed: options of `run`, `log` and `show`.
///
/// Values of one option are alternatives. Of several options, each must match.
#[derive(Args, Clone, Debug, Default)]
#[command(
    next_help_heading = "Filters (one given several times: any may match; several filters: all must match; * in a name matches any text)"
)]
pub struct Filters {
    /// Print only kills in this container: its name, its id (at least 12 digits), or NAMESPACE/POD/NAME as `containers` prints it.
    /// For a container of an unprivileged user's own runtime: UID/NAME or UID/ID.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub container: Vec<String>,
    /// Print only kills in this Kubernetes pod: its name or its uid.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub pod: Vec<String>,
    /// Print only kills in this Kubernetes namespace.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub namespace: Vec<String>,
    /// Print only kills in this systemd unit. For a unit of a user's own service manager: UID/NAME.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub unit: Vec<String>,
    /// Print only kills in containers of this image.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub image: Vec<String>,
    /// Print only kills of processes with this name (comm, at most 15 bytes).
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub comm: Vec<String>,
    /// Print only kills for which this had run out of memory. Kills of which this is not known are printed too.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub scope: Vec<ScopeChoice>,
    /// Print only events of this type; docs/EVENTS.md explains each. Without this option, filters leave out only kills and lines about
    /// kills: `start`, `lost` and the like are always printed.
    #[arg(long = "type", value_delimiter = ',', value_name = "TYPE", value_parser = PossibleValuesParser::new(Event::KINDS))]
    pub kind: Vec<String>,
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScopeChoice {
    /// A memory cgroup's limit.
    Memcg,
    /// The machine.
    Host,
    /// The nodes of a cpuset.
    Cpuset,
    /// The nodes of a memory policy.
    Mempolicy,
}

impl From<ScopeChoice> for Scope {
    fn from(choice: ScopeChoice) -> Self {
        match choice {
            ScopeChoice::Memcg => Self::Memcg,
            ScopeChoice::Host => Self::Host,
            ScopeChoice::Cpuset => Self::Cpuset,
            ScopeChoice::Mempolicy => Self::Mempolicy,
        }
    }
}
