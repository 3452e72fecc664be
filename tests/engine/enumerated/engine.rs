//! Words spelled by an engine.

use everlog::engine::Engine;
use everlog::fs::SimFs;
use everlog::fs::sim::{Crashed, Ledger};
use everlog::snapshot::{Retention, Store};
use everlog::{EntryId, Error, Journal, Result};

use super::book::{Between, Book, RETAIN, Standing, base, command, config, install, sound, spoil_newest};
use super::{Letter, Sampler, position};
use crate::support::{A, dynamic};

/// The client of all commands that take effect once.
const CLIENT: u64 = 7;

struct World {
    engine: Engine<Book>,
    journal: Journal,
    store: Store,
}

fn open(disk: &SimFs, between: Between) -> Result<World> {
    let (journal, store) = base(between(disk))?;
    let engine = Engine::open(&journal, A, &store, Book::default(), config())?;
    Ok(World {
        engine,
        journal,
        store,
    })
}

impl World {
    fn book(&self) -> Book {
        self.engine.read(Clone::clone).expect("the engine is open")
    }
}

pub(super) struct Life<'a> {
    disk: SimFs,
    between: Between,
    ledger: &'a Ledger<Standing>,
    world: Option<World>,
    now: Standing,
    /// Makes commands differ.
    made: u32,
}

impl<'a> Life<'a> {
    pub(super) fn begin(disk: &SimFs, between: Between, ledger: &'a Ledger<Standing>) -> Life<'a> {
        ledger.issue(Standing::default());
        let world = open(disk, between).expect("an empty disk");
        ledger.acknowledge();
        Life {
            disk: disk.clone(),
            between,
            ledger,
            world: Some(world),
            now: Standing::default(),
            made: 0,
        }
    }

    fn world(&self) -> &World {
        self.world.as_ref().expect("the engine is open")
    }

    fn command(&mut self, large: bool) -> String {
        self.made += 1;
        command(self.made, large)
    }

    pub(super) fn perform(&mut self, letter: Letter, position: usize) {
        match letter {
            Letter::Execute | Letter::Large => {
                let command = self.command(letter == Letter::Large);
                let then = self.now.with(self.now.next(), &command);
                self.issue(then);
                let reply = self.world().engine.execute(&command).expect("the disk is fine");
                assert_eq!(reply, self.now.book.0.len().to_string(), "replies are in order");
                self.ledger.acknowledge();
            }
            Letter::Once => {
                let command = self.command(false);
                let sequence = self.now.once.as_ref().map_or(1, |(last, _)| last + 1);
                let then = self.now.with_once(sequence, &command);
                self.issue(then);
                for again in [false, true] {
                    let reply = self.world().engine.execute_once(CLIENT, sequence, &command);
                    assert_eq!(
                        reply.expect("the disk is fine"),
                        self.now.book.0.len().to_string()
                    );
                    if !again {
                        self.ledger.acknowledge();
                    }
                }
            }
            Letter::Checkpoint => drop(self.world().engine.checkpoint().expect("the disk is fine")),
            Letter::Collect => {
                let newest = Retention::new().newest(RETAIN);
                self.world().store.collect(&newest).expect("the disk is fine");
            }
            Letter::Work => {
                self.world().journal.reclaim().expect("the disk is fine");
                while self.world().engine.work().expect("the disk is fine") {}
            }
            Letter::Install => self.install(),
            Letter::Reopen => self.reopen(position.is_multiple_of(2)),
            Letter::Uncommitted => unreachable!("an engine commits all that it writes"),
        }
    }

    fn issue(&mut self, then: Standing) {
        self.now = then;
        self.ledger.issue(self.now.clone());
    }

    /// The operator stops the engine, puts in a snapshot that came from elsewhere and is ahead, and starts it again.
    fn install(&mut self) {
        let world = self.world.take().expect("the engine is open");
        world.engine.close().expect("the disk is fine");
        let next = self.now.next();
        let command = self.command(false);
        let mut then = self
            .now
            .with(EntryId::new(next.term.0 + 1, next.index + 5), &command);
        then.once = None;
        self.issue(then);
        install(&self.now.book, &world.store).expect("the disk is fine");
        self.ledger.acknowledge();
        let (journal, store) = (world.journal, world.store);
        let engine = Engine::open(&journal, A, &store, Book::default(), config()).expect("the disk is fine");
        self.world = Some(World {
            engine,
            journal,
            store,
        });
        assert_eq!(self.world().book(), self.now.book, "the installed state");
    }

    /// `clean`: all is closed. Otherwise the process is killed, with a cell that is only written and a command that nobody waited for.
    fn reopen(&mut self, clean: bool) {
        let world = self.world.take().expect("the engine is open");
        if clean {
            world.engine.close().expect("the disk is fine");
            world.journal.close().expect("the disk is fine");
        } else {
            world
                .engine
                .log()
                .set_relaxed(1, b"only written")
                .expect("the disk is fine");
            let command = self.command(false);
            let then = self.now.with(self.now.next(), &command);
            self.ledger.issue(then);
            drop(world.engine.submit(&command).expect("the disk is fine"));
            self.disk = self.disk.kill();
            drop((world.engine, world.journal));
        }
        drop(world.store);
        let world = open(&self.disk, self.between).expect("the disk is fine");
        let found = world.book();
        if !clean && found != self.now.book {
            self.now = self
                .now
                .with(self.now.next(), &found.0.last().expect("one more").1);
        }
        assert_eq!(found, self.now.book);
        self.world = Some(world);
        self.issue(self.now.clone());
        self.ledger.acknowledge();
    }

    /// How many entries were purged and how many snapshots there are, for whoever wants to know what a word does.
    pub(super) fn reached(&self) -> (u64, usize) {
        let start = self
            .world()
            .engine
            .log()
            .bounds()
            .expect("the log is there")
            .start;
        (start, self.world().store.list().expect("the store is open").len())
    }
}

/// Opens what a power cut left: a prefix of what was issued, no shorter than what was acknowledged; found again by a nested opening;
/// no snapshot and no entry is missing; and the next life goes on.
pub(super) fn check(crashed: &Crashed<'_, Standing>, sampler: &Sampler) -> std::result::Result<(), String> {
    let disk = crashed.disk();
    let told = |what: &'static str| move |e: Error| format!("{what}: {e:?}");
    let world = open(&disk, dynamic).map_err(told("opening fails"))?;
    let found = world.book();
    let at = position(crashed, &found)?;
    crashed.recovered_exactly(at);
    let report = world.engine.report();
    if let Some((snapshot, error)) = report.refused.first() {
        return Err(format!("{snapshot:?} was refused: {error:?}"));
    }
    let end = world.engine.log().bounds().map_err(told("bounds"))?.end;
    let standing = &crashed.issued()[at - 1];
    if end != standing.next().index {
        return Err(format!(
            "the log ends at {end} and the machine before {}",
            standing.next()
        ));
    }
    let list = world.store.list_of(A).map_err(told("the list"))?;
    if !sampler.is_wanted(at, &(list.len(), end, report.reset_to, report.replayed_entries)) {
        return Ok(());
    }
    sound(&world.store, world.engine.log(), &found, A)?;
    let other = disk.fork().kill();
    if spoil_newest(&other, &list) {
        let world = open(&other, dynamic).map_err(told("falling back fails"))?;
        if world.book() != found {
            return Err(format!(
                "it falls back to {:?} and not to {found:?}",
                world.book()
            ));
        }
    }
    go_on(world, &disk, standing)
}

fn go_on(world: World, disk: &SimFs, standing: &Standing) -> std::result::Result<(), String> {
    let told = |what: &'static str| move |e: Error| format!("{what}: {e:?}");
    if let Some((sequence, reply)) = &standing.once {
        let again = world.engine.execute_once(CLIENT, *sequence, b"again");
        let again = again.map_err(told("what took effect once is refused"))?;
        if again != *reply {
            return Err(format!(
                "client {CLIENT} is told {again:?} again, and was told {reply:?}"
            ));
        }
    }
    let then = standing.with(standing.next(), "it goes on");
    world
        .engine
        .execute("it goes on")
        .map_err(told("it does not go on"))?;
    let done = world
        .engine
        .checkpoint()
        .map_err(told("no checkpoint can be taken"))?;
    if done
        .snapshot
        .is_none_or(|snapshot| snapshot.covers.index + 1 != then.next().index)
    {
        return Err("the checkpoint covers something else".to_string());
    }
    drop(world);
    let world = open(disk, dynamic).map_err(told("the next opening fails"))?;
    if world.book() != then.book || world.engine.report().replayed_entries != 0 {
        return Err(format!("the next opening finds {:?}", world.book()));
    }
    sound(&world.store, world.engine.log(), &then.book, A)
}
