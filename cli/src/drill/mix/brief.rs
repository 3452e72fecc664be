//! What a child of the mix is told: one line of JSON down its standard input. Everything it does follows from it.

use std::time::Duration;

use everlog::fs::{Fault, Op, Rule};
use everlog::{Alignment, Config};
use serde::{Deserialize, Serialize};

use super::super::entries::Random;
use super::model::Group;

/// The task of one life.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Brief {
    /// Seed of the drill, which decides the operations.
    pub(crate) seed: u64,
    /// Seed of this life, which decides its settings and its faults.
    pub(crate) life: u64,
    pub(crate) logs: u64,
    /// Opens the journal and waits to be killed.
    pub(crate) idle: bool,
    /// Some of the journal's system calls fail.
    pub(crate) faults: bool,
    pub(crate) workers: Vec<Hand>,
}

/// Where a worker goes on.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hand {
    /// The number of its next operation.
    pub(crate) next: u64,
    /// What its logs hold.
    pub(crate) group: Group,
}

/// Settings of a life: they may differ from one opening to the next, and here they do.
pub(crate) fn config(life: u64) -> Config {
    let mut random = Random::new(life);
    let mut pick = |of: [u64; 4]| of[usize::try_from(random.between(0..4)).unwrap_or(0)];
    let alignment = match pick([8, 8, 8, 4096]) {
        8 => Alignment::Bytes8,
        _ => Alignment::Bytes4096,
    };
    let mark = Duration::from_millis(pick([1, 2, 5, 20]));
    Config::new()
        .segment_bytes(pick([16, 16, 32, 64]) << 10)
        .in_flight_bytes(pick([8, 32, 32, 64]) << 10)
        .max_entry_bytes(64 << 10)
        .alignment(alignment)
        .segments_ahead(usize::try_from(pick([1, 1, 2, 3])).unwrap_or(1))
        .relaxed_delay(Duration::from_millis(pick([1, 3, 10, 100])))
        .mark_delays(mark, 4 * mark)
}

/// The calls that fail in a life: mostly one, so that the file is given up and its bytes go into a fresh one; sometimes
/// two in a row, or all from then on, so that the journal gives up.
pub(crate) struct Faults {
    /// From the first call of the opening on.
    pub(crate) opening: Vec<Rule>,
    /// From the end of the opening on.
    pub(crate) working: Vec<Rule>,
}

/// The faults of a life.
pub(crate) fn faults(life: u64) -> Faults {
    let mut random = Random::new(life.rotate_left(17));
    let mut rules = |most| {
        let count = random.between(0..3);
        (0..count).map(|_| rule(&mut random, most)).collect()
    };
    Faults {
        opening: rules(60),
        working: rules(15),
    }
}

fn rule(random: &mut Random, most: u64) -> Rule {
    let op = match random.between(0..20) {
        0..9 => Op::SyncData,
        9..17 => Op::Write,
        17..18 => Op::SyncDir,
        18 => Op::Rename,
        _ => Op::Create,
    };
    let fault = match random.between(0..8) {
        0 => Fault::no_space(),
        1 if op == Op::Write => Fault::Interrupted,
        2 if op == Op::Write => Fault::Short(usize::try_from(random.between(1..6_000)).unwrap_or(1)),
        3..5 if op != Op::Create => Fault::ErrorAfter(EIO),
        _ => Fault::Error(EIO),
    };
    let times = match random.between(0..20) {
        0..17 => 1,
        17..19 => 2,
        _ => u64::MAX,
    };
    Rule::on(op, fault).nth(random.between(1..most)).times(times)
}

const EIO: everlog::fs::Failure = everlog::fs::Failure::Os(5);

#[cfg(test)]
mod tests {
    use super::super::super::protocol;
    use super::*;

    #[test]
    fn what_is_told_is_heard() {
        let brief = Brief {
            seed: 1,
            life: u64::MAX,
            logs: 3,
            idle: false,
            faults: true,
            workers: vec![Hand {
                next: 9,
                group: Group([(2, Default::default())].into()),
            }],
        };
        let mut pipe = Vec::new();
        protocol::write_line(&brief, &mut pipe).unwrap();
        assert_eq!(protocol::read_line::<Brief>(&mut pipe.as_slice()).unwrap(), brief);
    }

    /// Whatever the seed of a life, the library takes the settings.
    #[test]
    fn every_life_has_valid_settings() {
        use everlog::fs::{Profile, SimFs};
        for life in 0..64 {
            let disk = std::sync::Arc::new(SimFs::new(1, Profile::PosixWeak));
            let config = config(life).background(everlog::Background::Caller);
            everlog::Journal::create_on(disk, config).unwrap();
        }
    }
}
