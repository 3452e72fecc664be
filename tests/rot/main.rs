//! Rot: a disk at rest, damaged in every way that is small enough to enumerate, and what becomes of the journal on it.
//!
//! Judged is that there is never a wrong byte; never a silent cut of an entry to which anything bears witness; that what was not
//! damaged is still served; that errors and findings name the right file and place; that open, read, view and `verify` agree; that a
//! refused open writes nothing; that the next life finds the same; that what cannot be read is never taken for a tear. What is witnessed is
//! worked out from the raw bytes. Each loss that nobody calls damage must be one of those that DESIGN.md, section 6, lists.
//!
//! `cargo test` runs a slice. The whole: `scripts/rot`, that is `EVERLOG_ROT=all` or the name of a sweep: `flips`, `sectors`, `files`,
//! `pairs`; with `EVERLOG_SECONDS` and `EVERLOG_ROT_SHARD=k/n` in parts. One case: `EVERLOG_ROT_CASE` as printed.

use std::sync::OnceLock;
use std::time::Instant;

use everlog::Alignment;

use damage::Damage;
use flips::Density;
use judge::{Depth, Outcome, judge};
use loss::Undecidable;
use raw::SECTOR;
use subject::{Ends, Plan, Subject};
use support::size;
use sweep::{Settings, Tally, case, parts};

mod cases;
mod damage;
mod flips;
mod found;
mod judge;
mod loss;
#[path = "../support/model.rs"]
#[expect(dead_code, reason = "shared with other tests, each of which uses a part")]
mod model;
#[path = "../support/random.rs"]
mod random;
mod raw;
mod served;
mod subject;
#[path = "../support/small.rs"]
#[expect(dead_code, reason = "shared with other tests, each of which uses a part")]
mod support;
mod sweep;
mod traced;

/// What `cargo test` runs of each.
struct Slice {
    flips: u64,
    sectors: u64,
    files: u64,
}

fn plans() -> Vec<(Plan, Slice)> {
    let small = Plan {
        name: "",
        seed: 1,
        segment_bytes: 16 << 10,
        alignment: Alignment::Bytes8,
        bytes: 180 << 10,
        ends: Ends::Closed,
    };
    let large = Plan {
        segment_bytes: 64 << 10,
        bytes: 1 << 20,
        ..small
    };
    let blocks = Plan {
        segment_bytes: 32 << 10,
        alignment: Alignment::Bytes4096,
        bytes: 256 << 10,
        ..small
    };
    let plan = |base: Plan, name, ends, seed, slice: [u64; 3]| {
        let [flips, sectors, files] = slice;
        let slice = Slice {
            flips,
            sectors,
            files,
        };
        let plan = Plan {
            name,
            ends,
            seed,
            ..base
        };
        (plan, slice)
    };
    vec![
        plan(small, "small, closed", Ends::Closed, 1, [997, 23, 11]),
        plan(small, "small, unclosed", Ends::Unclosed, 1, [997, 23, 11]),
        plan(small, "small, carried", Ends::Carried, 3, [997, 23, 11]),
        plan(small, "small, rotated", Ends::Rotated, 9, [1999, 47, 31]),
        plan(small, "small, marked", Ends::Marked, 4, [1999, 47, 31]),
        plan(blocks, "blocks, closed", Ends::Closed, 5, [3001, 97, 61]),
        plan(blocks, "blocks, unclosed", Ends::Unclosed, 6, [3001, 97, 61]),
        plan(large, "large, closed", Ends::Closed, 7, [9001, 997, 401]),
        plan(large, "large, unclosed", Ends::Unclosed, 8, [9001, 997, 401]),
    ]
}

fn subjects() -> &'static [(Subject, Slice)] {
    static SUBJECTS: OnceLock<Vec<(Subject, Slice)>> = OnceLock::new();
    SUBJECTS.get_or_init(|| {
        let settings = Settings::read();
        let plans = plans()
            .into_iter()
            .filter(|(plan, _)| settings.wants_subject(plan.name));
        plans.map(|(plan, slice)| (Subject::new(plan), slice)).collect()
    })
}

/// Runs one sweep over all subjects, and prints its figures.
fn run(sweep: &str, one: impl Fn(&Settings, &Subject, &Slice) -> Tally) {
    let settings = Settings::read();
    if !settings.wants(sweep) {
        return;
    }
    let mut total = Tally::default();
    let count = subjects().len();
    for (n, (subject, slice)) in subjects().iter().enumerate() {
        let started = Instant::now();
        let tally = one(&settings.share(count - n), subject, slice);
        let seconds = started.elapsed().as_secs_f64();
        println!("figure: rot: {sweep}, {}: {tally}, {seconds:.1} s", subject.name);
        total.add(tally);
    }
    println!("figure: rot: {sweep}: {total}");
    for failure in &total.failures {
        println!("{failure}");
        println!("  rerun: EVERLOG_ROT={sweep} with EVERLOG_ROT_SUBJECT and EVERLOG_ROT_CASE: scripts/rot");
    }
    assert!(total.failures.is_empty(), "{} failures", total.failures.len());
}

/// Runs each of `damages`, one at a time.
fn each(settings: &Settings, sweep: &str, subject: &Subject, damages: &[Damage], stride: u64) -> Tally {
    let stride = settings.stride(stride);
    let mut total = parts(settings, damages.len() as u64, &|n, tally| {
        let wanted = settings
            .only_case()
            .map_or(n.is_multiple_of(stride), |only| only == n);
        if !wanted {
            return;
        }
        let damage = &damages[size(n)..=size(n)];
        let story = || format!("{sweep}, {}: {damage:?}; EVERLOG_ROT_CASE={n}", subject.name);
        case(tally, &story, &|| judge(subject, damage, Depth::of_case(n)));
    });
    total.of = (damages.len() as u64).div_ceil(stride);
    total
}

#[test]
fn flips_of_single_bits_are_never_a_wrong_byte_and_never_a_silent_cut() {
    run("flips", |settings, subject, slice| {
        let density = Density {
            stride: settings.stride(slice.flips),
            whole: if settings.whole { 61 } else { 3 },
        };
        flips::sweep(settings, subject, density)
    });
}

#[test]
fn sectors_that_are_lost_garbled_stale_or_misdirected_are_told() {
    run("sectors", |settings, subject, slice| {
        each(
            settings,
            "sectors",
            subject,
            &cases::sectors(subject),
            slice.sectors,
        )
    });
}

#[test]
fn files_that_are_missing_cut_renamed_or_foreign_are_told() {
    run("files", |settings, subject, slice| {
        each(settings, "files", subject, &cases::files(subject), slice.files)
    });
}

#[test]
fn pairs_of_damages_are_told() {
    run("pairs", |settings, subject, slice| {
        let (sectors, files) = (cases::sectors(subject), cases::files(subject));
        let count = if settings.whole {
            20_000
        } else {
            20_000 / slice.flips
        };
        let mut total = parts(settings, count, &|n, tally| {
            let seed = settings.seed * 1_000_000 + n;
            if settings.only_case().is_some_and(|only| only != n) {
                return;
            }
            let Some(pair) = cases::pair(subject, &sectors, &files, seed) else {
                return;
            };
            let story = || {
                format!(
                    "pairs, {}: {pair:?}; EVERLOG_ROT_CASE={n} EVERLOG_SEED={}",
                    subject.name, settings.seed
                )
            };
            case(tally, &story, &|| judge(subject, &pair, Depth::of_case(n)));
        });
        total.of = count;
        total
    });
}

/// Each row of DESIGN.md, section 6, is met by a damage that is made for it: the list has none that is idle.
#[test]
fn each_undecidable_case_of_the_design_occurs() {
    let of = |name: &str| {
        let found = subjects().iter().find(|(subject, _)| subject.name == name);
        found.map(|(subject, _)| subject)
    };
    let (Some(closed), Some(unclosed), Some(rotated)) =
        (of("small, closed"), of("small, unclosed"), of("small, rotated"))
    else {
        return;
    };
    let last_entry = |subject: &Subject| {
        let batches = &subject.last().batches;
        let last = batches
            .iter()
            .rfind(|batch| !batch.frames.is_empty())
            .expect("a batch with frames");
        (subject.last().path.clone(), last.header.offset)
    };
    let (path, at) = last_entry(unclosed);
    let zeros = |(path, at): (String, u64)| vec![Damage::Blank((path, at / SECTOR))];
    let opening = [0, 8].map(|sector| Damage::Zero((rotated.last().path.clone(), sector)));
    let removed = Damage::Removed(closed.last().path.clone());
    let rows = [
        (
            Undecidable::Unwitnessed,
            unclosed,
            vec![Damage::Flip(path, at * 8 + 1)],
        ),
        (Undecidable::UnwitnessedZeros, rotated, zeros(last_entry(rotated))),
        (Undecidable::Witness, closed, zeros(last_entry(closed))),
        (Undecidable::LastFile, closed, vec![removed]),
        (Undecidable::Directory, closed, vec![Damage::Earlier(None, 0)]),
        (Undecidable::Opening, rotated, opening.to_vec()),
    ];
    assert_eq!(rows.each_ref().map(|row| row.0), loss::ALL);
    for (row, subject, damages) in rows {
        let outcome = judge(subject, &damages, Depth::Digest);
        assert_eq!(outcome, Ok(Outcome::Lost(row)), "{}: {damages:?}", subject.name);
    }
}
