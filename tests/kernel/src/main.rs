//! everlog on real file systems: the kernel's ext4 and XFS, on a disk that records every write and flush and crashes on demand.
//! Run by `scripts/kernel`, which says what it needs.

mod budget;
mod calls;
mod cuts;
mod disk;
mod fsyncgate;
mod fuse;
mod images;
mod lazy;
mod machine;
#[expect(dead_code, reason = "other suites use more of it")]
#[path = "../../support/model.rs"]
mod model;
mod outcomes;
#[path = "../../support/random.rs"]
mod random;
mod workload;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use budget::Budget;
use machine::{Kind, Machine};

fn main() -> io::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let (Some(what), Some(dir), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!(
            "usage: everlog-kernel ext4|xfs|sharp|outcomes|outcomes-xfs|fsyncgate|fsyncgate-xfs DIRECTORY"
        );
        return Ok(ExitCode::from(2));
    };
    let dir = PathBuf::from(dir);
    let machine = |kind: Kind| {
        let dir = dir.join(kind.name());
        fs::create_dir(&dir)?;
        Machine::new(kind, &dir)
    };
    let (ext4, xfs) = (Kind::Ext4, Kind::Xfs);
    let violations = match what.as_str() {
        "ext4" => images::campaign(&machine(ext4)?, &mut Budget::new(100_000)?).violations,
        "xfs" => images::campaign(&machine(xfs)?, &mut Budget::new(10_000)?).violations,
        "sharp" => images::sharpness(&machine(ext4)?, &mut Budget::new(0)?),
        "outcomes" => outcomes::compare(&machine(ext4)?, &mut Budget::new(20_000)?),
        "outcomes-xfs" => outcomes::compare(&machine(xfs)?, &mut Budget::new(2_000)?),
        "fsyncgate" => fsyncgate::prove(&machine(ext4)?, &mut Budget::new(20_000)?),
        "fsyncgate-xfs" => fsyncgate::prove(&machine(xfs)?, &mut Budget::new(2_000)?),
        _ => return Err(io::Error::other(format!("no such proof: {what}"))),
    };
    if violations.is_empty() {
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::FAILURE)
    }
}
