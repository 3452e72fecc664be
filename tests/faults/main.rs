//! Every call to the disk fails in turn, once and for ever, in every way that a system knows, alone and two at a time; then
//! comes a crash.
//!
//! Each workload runs once to count its calls. Then it runs again for each call and each thing that can befall it. What is
//! asked: nothing that was acknowledged is lost, nothing that was refused is there, errors are of the kind that tells the caller the
//! truth, reads show what they should, nothing panics, and when the cause is gone the journal goes on, or says that it is closed and
//! opens again. Crashes come right behind the call that failed and at the end; calls fail while those are recovered, too.
//!
//! `cargo test --test faults` runs a slice, `scripts/faults` the whole; `EVERLOG_FAULT=workload/17:Lost:Once` runs one case.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harm::{HARMS, Plan, SPANS, Span};
use judge::Depth;
use random::Random;
use run::Ground;
use saboteur::Site;
use tally::Tally;
use workloads::Workload;

mod harm;
mod judge;
#[expect(dead_code, reason = "shared with other tests, which use more of it")]
#[path = "../support/model.rs"]
mod model;
#[expect(dead_code, reason = "shared with other tests, which use more of it")]
#[path = "../support/random.rs"]
mod random;
mod run;
mod saboteur;
mod scripts;
mod tally;
mod window;
mod workloads;

/// A workload, where it begins, and the calls that it makes when nothing fails.
struct Subject {
    workload: Workload,
    ground: Ground,
    trace: Vec<Site>,
}

/// One run to be made.
struct Case<'a> {
    subject: &'a Subject,
    plans: Vec<Plan>,
}

impl std::fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.subject.workload.name)?;
        self.plans.iter().try_for_each(|plan| write!(f, "/{plan}"))
    }
}

fn setting<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let value = text.parse();
    Some(value.unwrap_or_else(|_| panic!("{name} is {text:?}, which means nothing")))
}

fn subjects(tally: &Tally) -> Vec<Subject> {
    let only: Option<String> = setting("EVERLOG_WORKLOAD");
    let all = scripts::all().into_iter();
    let chosen = all.filter(|workload| only.as_ref().is_none_or(|only| only == workload.name));
    chosen
        .map(|workload| {
            let ground = workload.ground();
            let trace = workload.run(&ground, &[], Depth::Whole, tally);
            Subject {
                workload,
                ground,
                trace,
            }
        })
        .collect()
}

/// Every call of the workload with everything that can befall it.
fn singles<'a>(subject: &'a Subject, spans: &'a [Span]) -> impl Iterator<Item = Case<'a>> {
    (1..).zip(&subject.trace).flat_map(move |(at, site)| {
        let harms = HARMS.into_iter().filter(|harm| harm.applies(*site));
        let plans = harms.flat_map(move |harm| {
            spans.iter().map(move |span| Plan {
                at,
                harm,
                span: *span,
            })
        });
        plans.map(|plan| Case {
            subject,
            plans: vec![plan],
        })
    })
}

/// Two things that go wrong, drawn from `random`.
fn pair<'a>(subjects: &'a [Subject], random: &mut Random) -> Case<'a> {
    let subject = &subjects[random.index(subjects.len())];
    let calls = subject.trace.len() as u64;
    let mut plan = |from: u64, within: u64| Plan {
        at: from + random.below(within),
        harm: random.pick(&HARMS),
        span: random.pick(&[Span::Once, Span::Once, Span::Once, Span::Site, Span::All]),
    };
    let first = plan(1, calls);
    // Close behind the first one, where the journal is busy with it, or anywhere.
    let second = match first.at % 3 {
        0 => plan(1, calls + 40),
        _ => plan(first.at, 24),
    };
    Case {
        subject,
        plans: vec![first, second],
    }
}

/// What a panic said.
fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without words".to_owned())
}

/// Runs a case; what is wrong with it, if anything is.
fn violation(case: &Case<'_>, depth: Depth, tally: &Tally) -> Option<String> {
    let Subject { workload, ground, .. } = case.subject;
    let run = || workload.run(ground, &case.plans, depth, tally);
    let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
    let what = told(&*panic);
    Some(format!(
        "{case}: {what}\nrerun: EVERLOG_FAULT={case} cargo test --test faults -- --nocapture\n"
    ))
}

/// Runs cases on all processors until they end, the time is over, or too much is wrong.
fn sweep<'a>(
    cases: impl Iterator<Item = Case<'a>> + Send,
    until: Option<Instant>,
    depth: Depth,
    tally: &Tally,
) -> Vec<String> {
    let cases = Mutex::new(cases);
    let violations = Mutex::new(Vec::new());
    let count = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = || cases.lock().expect("no panic while held").next();
    let over = || {
        until.is_some_and(|until| Instant::now() >= until) || count.load(Ordering::Relaxed) >= VIOLATIONS_MAX
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !over()
                    && let Some(case) = next()
                {
                    match &case.plans[..] {
                        [_] => tally.singles.add(1),
                        _ => tally.pairs.add(1),
                    }
                    if let Some(violation) = violation(&case, depth, tally) {
                        count.fetch_add(1, Ordering::Relaxed);
                        violations.lock().expect("no panic while held").push(violation);
                    }
                }
            });
        }
    });
    violations.into_inner().expect("no panic while held")
}

fn report(tally: &Tally, workloads: usize, violations: &[String], started: Instant) {
    println!("{}", tally.figure(workloads, violations.len()));
    println!("{tally}in {:?}", started.elapsed());
    for violation in violations {
        println!("\n{violation}");
    }
    drop(std::panic::take_hook());
    assert!(
        violations.is_empty(),
        "{} cases went wrong, see above",
        violations.len()
    );
}

/// One case, as a failure names it: `workload/plan` or `workload/plan/plan`.
fn rerun(text: &str) {
    let tally = Tally::default();
    let mut parts = text.split('/');
    let name = parts.next().unwrap_or_default();
    let plans = parts.map(|part| part.parse().unwrap_or_else(|e| panic!("{e}")));
    let plans: Vec<Plan> = plans.collect();
    let workload = scripts::all()
        .into_iter()
        .find(|workload| workload.name == name)
        .unwrap_or_else(|| panic!("there is no workload {name:?}"));
    let ground = workload.ground();
    let trace = workload.run(&ground, &[], Depth::Slice, &tally);
    for plan in &plans {
        let at = usize::try_from(plan.at).expect("a short run");
        println!("call {at} is {:?}", trace.get(at - 1));
    }
    let subject = Subject {
        workload,
        ground,
        trace,
    };
    let case = Case {
        subject: &subject,
        plans,
    };
    let violations: Vec<String> = violation(&case, Depth::Whole, &tally).into_iter().collect();
    report(&tally, 1, &violations, Instant::now());
}

#[test]
fn every_call_may_fail_and_nothing_acknowledged_is_lost() {
    if let Some(text) = setting::<String>("EVERLOG_FAULT") {
        return rerun(&text);
    }
    let started = Instant::now();
    let tally = Tally::default();
    let subjects = subjects(&tally);
    // Panics are caught, and what they say is told at the end.
    std::panic::set_hook(Box::new(|_| {}));
    let seconds: Option<u64> = setting("EVERLOG_SECONDS");
    let first: u64 = setting("EVERLOG_SEED").unwrap_or(1);
    let Some(seconds) = seconds else {
        let once = subjects.iter().flat_map(|subject| singles(subject, &SPANS[..1]));
        let stride = usize::try_from(setting("EVERLOG_STRIDE").unwrap_or(SLICE_STRIDE)).expect("small");
        let mut violations = sweep(once.step_by(stride), None, Depth::Slice, &tally);
        let mut random = Random::new(first);
        let pairs = (0..SLICE_PAIRS).map(|_| pair(&subjects, &mut random));
        violations.extend(sweep(pairs, None, Depth::Slice, &tally));
        return report(&tally, subjects.len(), &violations, started);
    };
    let share = |percent: u64| Some(started + Duration::from_millis(seconds * 10 * percent));
    let mut random = Random::new(first);
    let mut pairs = std::iter::repeat_with(|| pair(&subjects, &mut random));
    let singles = || subjects.iter().flat_map(|subject| singles(subject, &SPANS));
    // Wide first, then deep.
    let mut violations = sweep(singles(), share(30), Depth::Slice, &tally);
    violations.extend(sweep(&mut pairs, share(40), Depth::Slice, &tally));
    violations.extend(sweep(singles(), share(80), Depth::Whole, &tally));
    violations.extend(sweep(&mut pairs, share(100), Depth::Whole, &tally));
    report(&tally, subjects.len(), &violations, started);
}

/// Of every so many single faults the slice takes one.
const SLICE_STRIDE: u64 = 7;
const SLICE_PAIRS: u64 = 500;
/// After so many violations a sweep ends.
const VIOLATIONS_MAX: usize = 30;
