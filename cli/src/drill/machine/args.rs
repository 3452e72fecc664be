//! The options of a drill that drills a machine.

use std::time::Duration;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct MachineArgs {
    /// Feed the lines to a state machine, a map, and kill also while a checkpoint of it is taken, while snapshots are
    /// collected, and while it is restored
    #[arg(long, group = "stages")]
    pub(crate) machine: bool,
    /// How long a restart of the machine may take, from the opening of the journal to the first command: checkpoints are
    /// taken accordingly, and restarts are measured against it
    #[arg(long, value_name = "SECONDS", default_value = "2", requires = "machine", conflicts_with = "mix", value_parser = seconds)]
    pub(crate) restart_within: Duration,
    /// A restart that takes longer is a finding, and is not only told: for a machine that has nothing else to do
    #[arg(long, requires = "machine", conflicts_with = "mix")]
    pub(crate) strict_budget: bool,
    /// How many keys the map has at most
    #[arg(long, value_name = "N", default_value = "10000", requires = "machine", conflicts_with = "mix", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) keys: u64,
    /// How long a process works at most before it is killed
    #[arg(long, value_name = "SECONDS", default_value = "0.2", requires = "machine", conflicts_with = "mix", value_parser = seconds)]
    pub(crate) life: Duration,
    /// Let the machine forget a key whenever it is restored, which the drill must notice
    #[arg(long, requires = "machine", conflicts_with = "mix", hide = true)]
    pub(crate) forget: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let time = Duration::try_from_secs_f64(number).map_err(|error| error.to_string())?;
    match (Duration::from_micros(1)..=Duration::from_secs(24 * 3600)).contains(&time) {
        true => Ok(time),
        false => Err("not between 0.000001 and 86400".to_owned()),
    }
}
