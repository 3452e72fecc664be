//! Opens what a crash left, compares it with the model, and looks further from there: crashes inside the recovery, a second
//! opening, a few operations and another crash.

use std::sync::Arc;

use everlog::fs::{Fs, SimFs};
use everlog::inspect::View;
use everlog::{Config, Error, ErrorKind, Journal};

use super::choose::{Chooser, Ground};
use super::life::Life;
use super::model::Model;
use super::probe::{Loss, Moment, Probe};
use super::tally::Tally;
use super::timeline::{Claims, Timeline};

/// One workload: a journal, its lives, and the crash states on the way.
pub(crate) struct Explorer<'a> {
    pub(crate) ground: Ground,
    pub(crate) chooser: Chooser,
    pub(crate) tally: &'a Tally,
    /// What led to where we are; side branches leave nothing in it.
    pub(crate) trace: Vec<String>,
    /// The disk as the last crash left it.
    pub(crate) left: Option<SimFs>,
}

/// What the journal said before the operation during which a crash came.
#[derive(Clone, Default)]
pub(crate) struct Said {
    pub(crate) claims: Claims,
    /// What it showed then.
    pub(crate) then: Model,
    /// The newest state of the timeline is that of the operation itself, to which the claims do not apply.
    pub(crate) in_progress: bool,
}

/// Crashes within what follows a crash: so deep, and no deeper.
const DEPTH_MAX: usize = 3;
const UNLIMITED: u64 = 1 << 40;

impl<'a> Explorer<'a> {
    pub(crate) fn new(seed: u64, tally: &'a Tally) -> Explorer<'a> {
        let mut chooser = Chooser::new(seed);
        let ground = Ground::choose(&mut chooser.random);
        Explorer {
            ground,
            chooser,
            tally,
            trace: Vec::new(),
            left: None,
        }
    }

    pub(crate) fn note(&mut self, what: String) {
        self.trace.push(what);
    }

    /// A whole workload.
    pub(crate) fn run(&mut self, seed: u64) {
        self.tally.workloads.add(1);
        let disk = SimFs::with_sector_bytes(seed, self.ground.profile, self.ground.sector_bytes);
        self.note(format!("{:?}", self.ground));
        let Some(mut life) = self.create(disk) else { return };
        for _ in 0..self.chooser.random.below(6) {
            let steps = 3 + self.chooser.random.below(30);
            if !self.live(&mut life, steps) {
                return;
            }
            let (moment, timeline, said) = self.end(&mut life);
            match self.enter(moment, timeline, &said, 0) {
                Some(next) => life = next,
                None => return,
            }
        }
        let steps = 3 + self.chooser.random.below(30);
        if self.live(&mut life, steps) {
            self.drain(&mut life);
        }
    }

    /// Creates the journal, with crashes on the way.
    fn create(&mut self, disk: SimFs) -> Option<Life> {
        let probe = Probe::new(disk, self.chooser.random.next());
        let config = self.ground.config(&mut self.chooser.random);
        self.note(format!("create with {}", brief(&config)));
        probe.arm(200, 4);
        let fs: Arc<dyn Fs> = Arc::new(probe.clone());
        let journal = Journal::create_on(fs, config).expect("a new journal on an empty disk");
        let moments = probe.take();
        let mut timeline = Timeline::new();
        for moment in moments {
            self.examine(moment, timeline.clone(), &Said::default(), 1);
        }
        timeline.ack(0);
        Some(Life::new(journal, probe, timeline, 0))
    }

    /// Opens `moment`, compares, and goes on from there for a little while.
    pub(crate) fn examine(&mut self, moment: Moment, timeline: Timeline, said: &Said, depth: usize) {
        let trace = self.trace.len();
        if let Some(life) = self.enter(moment, timeline, said, depth)
            && depth < DEPTH_MAX
        {
            self.follow(life, depth);
        }
        self.trace.truncate(trace);
    }

    fn follow(&mut self, mut life: Life, depth: usize) {
        match self.chooser.random.below(12) {
            0..=4 => {}
            5 | 6 => {
                self.note("crash before anything is written".into());
                let loss = self.chooser.random.pick(&[Loss::Power, Loss::Power, Loss::Kill]);
                let moment = life.probe.moment(loss, "after opening");
                self.examine(moment, life.timeline.clone(), &Said::default(), depth + 1);
            }
            7 => {
                if self.close(&mut life) {
                    let (moment, timeline, said) = self.end(&mut life);
                    self.examine(moment, timeline, &said, depth + 1);
                }
            }
            _ => {
                let steps = 1 + self.chooser.random.below(6);
                if self.live(&mut life, steps) {
                    let (moment, timeline, said) = self.end(&mut life);
                    self.examine(moment, timeline, &said, depth + 1);
                }
            }
        }
    }

    /// Opens what a crash left and compares it with the model. `None` if there is nothing to go on with.
    pub(crate) fn enter(
        &mut self,
        moment: Moment,
        timeline: Timeline,
        said: &Said,
        depth: usize,
    ) -> Option<Life> {
        let Moment {
            disk,
            loss,
            at,
            closed,
        } = moment;
        self.count(loss);
        let config = self.ground.config(&mut self.chooser.random);
        self.note(format!("{loss:?} {at}; open with {}", brief(&config)));
        if self.chooser.random.one_in(2) {
            disk.set_capacity(UNLIMITED);
        }
        let probe = Probe::new(disk, self.chooser.random.next());
        if depth < DEPTH_MAX && self.chooser.random.one_in(3) {
            probe.arm(120, 2);
        }
        if !self.ground.is_hostile() && self.chooser.random.one_in(24) {
            for _ in 0..1 + self.chooser.random.below(2) {
                let fault = self.chooser.fault();
                self.note(format!("with {fault:?}"));
                probe.plan(fault);
            }
        }
        self.left = Some(probe.disk.fork());
        let mut timeline = timeline;
        if loss == Loss::Power {
            timeline.written = timeline.base();
        }
        let seen = self.view(&probe.disk, &config, timeline.unborn);
        let fs: Arc<dyn Fs> = Arc::new(probe.clone());
        let opened = Journal::open_on(fs, config);
        let nested = probe.take();
        probe.heal();
        let journal = match opened {
            Ok(journal) => journal,
            Err(error) => return self.refused(&error, &probe, timeline, nested, said, depth),
        };
        self.tally.opened(journal.report());
        if closed && probe.fired() == 0 {
            self.check_clean(&journal);
        }
        let found = self.read(&journal)?;
        if let Some(seen) = seen.filter(|seen| *seen != found) {
            panic!("a view shows\n{seen}\nand the journal\n{found}");
        }
        let position = self.position(&journal, &timeline, &found, said);
        self.tally
            .lost_writes
            .add(u64::from(position < timeline.issued()));
        self.tally.kept_writes.add(u64::from(position > timeline.base()));
        for moment in nested {
            self.tally.nested.add(1);
            let window = timeline.within(loss, moment.loss, position);
            self.examine(moment, window, &Said::default(), depth + 1);
        }
        timeline.found(position);
        // Everything that opening found is durable from now on.
        timeline.ack(position);
        Some(Life::new(journal, probe, timeline, depth))
    }

    /// What a view of the disk shows, now and then. It must show no damage, and change nothing.
    fn view(&mut self, disk: &SimFs, config: &Config, unborn: bool) -> Option<Model> {
        if self.ground.is_hostile() || !self.chooser.random.one_in(8) {
            return None;
        }
        let calls = disk.ops();
        let view = match View::open_on(Arc::new(disk.clone()), config.clone()) {
            Err(error) if unborn && error.kind() == ErrorKind::NotFound => return None,
            view => view.expect("a view of a journal"),
        };
        self.tally.views.add(1);
        check_view(&view);
        assert_eq!(disk.ops(), calls, "a view changed something");
        Some(Model::view(&view).expect("a view reads what it shows"))
    }

    fn count(&self, loss: Loss) {
        self.tally.states.add(1);
        match loss {
            Loss::Power => self.tally.power_cuts.add(1),
            Loss::Kill => self.tally.kills.add(1),
        }
        self.tally.hostile_states.add(u64::from(self.ground.is_hostile()));
    }

    /// Opening failed. That is right where there may be no journal, after a fault, on a full disk, and of a hostile disk.
    fn refused(
        &mut self,
        error: &Error,
        probe: &Probe,
        mut timeline: Timeline,
        nested: Vec<Moment>,
        said: &Said,
        depth: usize,
    ) -> Option<Life> {
        self.note(format!("opening failed: {error:?}"));
        if self.ground.is_hostile() && is_damage(error.kind()) {
            self.tally.hostile_damaged.add(1);
            return None;
        }
        if timeline.unborn && error.kind() == ErrorKind::NotFound {
            let fs: Arc<dyn Fs> = Arc::new(probe.clone());
            let journal = Journal::open_or_create_on(fs, self.ground.config(&mut self.chooser.random));
            let journal = journal.expect("a journal after a crash while it was created");
            assert!(journal.logs().is_empty(), "a new journal is empty");
            return None;
        }
        let faulty = probe.fired() > 0 && matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace);
        let full = is_tight(&probe.disk) && error.kind() == ErrorKind::NoSpace;
        assert!(faulty || full, "opening failed: {error:?}");
        self.tally.open_failed.add(1);
        for moment in nested {
            self.examine(moment, timeline.clone(), &Said::default(), DEPTH_MAX);
        }
        probe.disk.set_capacity(UNLIMITED);
        // It was there, and is there again unless its directory forgot it.
        timeline.unborn &= probe.dir_failed();
        let loss = self.chooser.random.pick(&[Loss::Kill, Loss::Power]);
        let moment = probe.moment(loss, "after opening failed");
        self.enter(moment, timeline, said, depth)
    }

    fn check_clean(&self, journal: &Journal) {
        let report = journal.report();
        assert_eq!(
            report.verdict,
            everlog::Verdict::Clean,
            "after closing: {report:?}"
        );
        assert_eq!(report.carried_batches, 0, "after closing: {report:?}");
    }

    /// What `journal` holds; `None` if a hostile disk has damaged it, and the journal says so.
    pub(crate) fn read(&mut self, journal: &Journal) -> Option<Model> {
        match Model::read(journal) {
            Ok(found) => {
                let entries = found.0.values().map(|log| log.entries.len() + log.cells.len());
                self.tally.entries.add(entries.sum::<usize>() as u64);
                Some(found)
            }
            Err(error) if self.ground.is_hostile() && is_damage(error.kind()) => {
                self.tally.hostile_damaged.add(1);
                None
            }
            Err(error) => panic!("reading failed: {error:?}"),
        }
    }

    /// The position of what was found.
    fn position(&self, journal: &Journal, timeline: &Timeline, found: &Model, said: &Said) -> u64 {
        let Some(position) = timeline.find(found, timeline.written) else {
            panic!(
                "what was found is not a state that a crash may leave.\nfound:\n{found}\nallowed:\n{}report: {:?}",
                timeline.describe(timeline.written),
                journal.report()
            );
        };
        if !(said.in_progress && position == timeline.issued())
            && let Some(broken) = said.claims.broken_by(found, &said.then)
        {
            panic!(
                "{broken}, and is not there.\nfound:\n{found}\nit showed:\n{}",
                said.then
            );
        }
        position
    }
}

/// A crash is no damage.
pub(crate) fn check_view(view: &View) {
    let damage: Vec<_> = view
        .findings()
        .iter()
        .filter(|finding| finding.is_damage())
        .collect();
    assert!(damage.is_empty(), "a view finds damage: {damage:#?}");
}

/// What a journal may say of a disk that has harmed synced bytes.
pub(crate) fn is_damage(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Damaged | ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::NotFound
    )
}

/// Whether the size of the disk was limited.
pub(crate) fn is_tight(disk: &SimFs) -> bool {
    disk.space().is_ok_and(|space| space.total < UNLIMITED)
}

pub(crate) fn loosen(disk: &SimFs) {
    disk.set_capacity(UNLIMITED);
}

/// The settings that matter, on one line.
fn brief(config: &Config) -> String {
    let text = format!("{config:?}");
    let wanted = [
        "segment_bytes",
        "alignment",
        "in_flight_bytes",
        "relaxed_bytes",
        "segments_ahead",
        "verify_on_open",
    ];
    let parts = text
        .split(", ")
        .filter(|part| wanted.iter().any(|name| part.contains(name)));
    parts.collect::<Vec<_>>().join(", ")
}
