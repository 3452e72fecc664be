//! Words spelled by a replica and its owner, who keeps the log: what is committed stands in a cell of it, as it would for a consensus engine.

use bytes::Bytes;
use everlog::engine::Replica;
use everlog::fs::SimFs;
use everlog::fs::sim::{Crashed, Ledger};
use everlog::snapshot::{Origin, Retention, Store};
use everlog::{Entry, EntryId, Error, Journal, Log, Result, WriteBatch};

use super::book::{Between, Book, RETAIN, Standing, base, command, config, install, sound, spoil_newest};
use super::{Letter, Sampler, position};
use crate::support::{A, dynamic};

/// The cell in which the owner keeps up to where the log is committed.
const COMMITTED: u8 = 1;

struct World {
    replica: Replica<Book>,
    log: Log,
    journal: Journal,
    store: Store,
}

fn open(disk: &SimFs, between: Between) -> Result<World> {
    let (journal, store) = base(between(disk))?;
    let log = journal.open_or_create_log(A, 0)?;
    let committed = log.cell(COMMITTED)?.map_or(0, |value| {
        u64::from_le_bytes(value[..].try_into().expect("a number"))
    });
    let decode = |entry: &Entry| -> Option<Bytes> { Some(entry.payload.clone()) };
    let replica = Replica::open_on_log(&store, &log, committed, decode, Book::default(), config())?;
    Ok(World {
        replica,
        log,
        journal,
        store,
    })
}

impl World {
    fn book(&self) -> Book {
        self.replica.read(Clone::clone).expect("the replica is open")
    }

    /// The entry behind the applied ones that was never committed.
    fn uncommitted(&self, next: EntryId) -> Option<Entry> {
        let end = self.log.bounds().expect("the log is there").end;
        (end > next.index).then(|| self.log.entry(next.index).expect("it is there"))
    }

    /// Makes `command` the entry `id` of the log, in place of what was not committed there; commits and applies it.
    fn commit(&self, id: EntryId, command: &str) -> Result<()> {
        let mut batch = WriteBatch::new();
        if self.uncommitted(id).is_some() {
            batch.truncate_from(A, id.index);
        }
        batch.append_at(A, id, command);
        batch.set(A, COMMITTED, (id.index + 1).to_le_bytes());
        self.journal.write(batch)?;
        self.replica.apply(id, Some(command.as_bytes())).map(drop)
    }

    /// The owner purges to what all snapshots hold that are kept to fall back to.
    fn purge(&self) -> Result<()> {
        let list = self.store.list_of(A)?;
        if list.len() >= RETAIN
            && let Some(oldest) = list.last()
            && self.log.bounds()?.start <= oldest.covers.index
        {
            self.log.purge_through(oldest.covers)?;
        }
        self.journal.reclaim()?;
        while self.journal.work()? {}
        Ok(())
    }
}

pub(super) struct Life<'a> {
    disk: SimFs,
    between: Between,
    ledger: &'a Ledger<Standing>,
    world: Option<World>,
    now: Standing,
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
        self.world.as_ref().expect("the replica is open")
    }

    fn command(&mut self, large: bool) -> String {
        self.made += 1;
        command(self.made, large)
    }

    pub(super) fn perform(&mut self, letter: Letter, position: usize) {
        match letter {
            Letter::Execute | Letter::Large => {
                let command = self.command(letter == Letter::Large);
                let next = self.now.next();
                // A new leader takes back what the last one did not commit.
                let term = next.term.0 + u128::from(self.world().uncommitted(next).is_some());
                let id = EntryId::new(term, next.index);
                self.issue(self.now.with(id, &command));
                self.world().commit(id, &command).expect("the disk is fine");
                self.ledger.acknowledge();
            }
            Letter::Uncommitted => {
                let next = self.now.next();
                if self.world().uncommitted(next).is_none() {
                    let command = self.command(false);
                    self.world()
                        .log
                        .append_at(next, command)
                        .expect("the disk is fine");
                }
            }
            Letter::Checkpoint => drop(self.world().replica.checkpoint(b"").expect("the disk is fine")),
            Letter::Collect => {
                let newest = Retention::new().newest(RETAIN);
                self.world().store.collect(&newest).expect("the disk is fine");
            }
            Letter::Work => self.world().purge().expect("the disk is fine"),
            Letter::Install => self.install(),
            Letter::Reopen => self.reopen(position.is_multiple_of(2)),
            Letter::Once => unreachable!("whoever orders the entries sees to it"),
        }
    }

    fn issue(&mut self, then: Standing) {
        self.now = then;
        self.ledger.issue(self.now.clone());
    }

    /// A snapshot of what the leader committed is installed: it ends with the entry that was not committed here, or is far ahead.
    fn install(&mut self) {
        let next = self.now.next();
        let then = match self.world().uncommitted(next) {
            Some(entry) => self
                .now
                .with(entry.id, std::str::from_utf8(&entry.payload).expect("text")),
            None => {
                let command = self.command(false);
                self.now
                    .with(EntryId::new(next.term.0 + 1, next.index + 5), &command)
            }
        };
        self.issue(then);
        let installed = install(&self.now.book, &self.world().store).expect("the disk is fine");
        self.ledger.acknowledge();
        self.world()
            .replica
            .install(installed.id)
            .expect("the disk is fine");
        assert_eq!(self.world().book(), self.now.book, "the installed state");
    }

    /// `clean`: all is closed. Otherwise the process is killed, with an entry that is only written.
    fn reopen(&mut self, clean: bool) {
        let world = self.world.take().expect("the replica is open");
        if clean {
            drop(world.replica);
            world.journal.close().expect("the disk is fine");
        } else {
            let id = self.now.next();
            let mut batch = WriteBatch::new();
            if world.uncommitted(id).is_none() {
                batch.append_at(A, id, "only written");
            }
            batch.set(A, 2, b"only written");
            world.journal.write_relaxed(batch).expect("the disk is fine");
            self.disk = self.disk.kill();
            drop((world.replica, world.journal));
        }
        drop((world.log, world.store));
        let world = open(&self.disk, self.between).expect("the disk is fine");
        assert_eq!(world.book(), self.now.book);
        self.world = Some(world);
    }

    /// How many entries were purged and how many snapshots there are, for whoever wants to know what a word does.
    pub(super) fn reached(&self) -> (u64, usize) {
        let start = self.world().log.bounds().expect("the log is there").start;
        (start, self.world().store.list().expect("the store is open").len())
    }
}

/// Opens what a power cut left: what was committed and applied, never more than was committed; found again by a nested opening;
/// no snapshot and no entry is missing; and the next life goes on.
pub(super) fn check(crashed: &Crashed<'_, Standing>, sampler: &Sampler) -> std::result::Result<(), String> {
    let disk = crashed.disk();
    let told = |what: &'static str| move |e: Error| format!("{what}: {e:?}");
    let world = open(&disk, dynamic).map_err(told("opening fails"))?;
    let found = world.book();
    let at = position(crashed, &found)?;
    crashed.recovered_exactly(at);
    let report = world.replica.report();
    if let Some((snapshot, error)) = report.refused.first() {
        return Err(format!("{snapshot:?} was refused: {error:?}"));
    }
    let standing = &crashed.issued()[at - 1];
    let end = world.log.bounds().map_err(told("bounds"))?.end;
    if end < standing.next().index {
        return Err(format!(
            "the log ends at {end}, before what was applied: {}",
            standing.next()
        ));
    }
    let list = world.store.list_of(A).map_err(told("the list"))?;
    if !sampler.is_wanted(at, &(list.len(), end, report.reset_to, report.replayed_entries)) {
        return Ok(());
    }
    sound(&world.store, &world.log, &found, A)?;
    let other = disk.fork().kill();
    // Older ones cannot be fallen back to across an installed one.
    if list.iter().all(|one| one.origin != Origin::Installed) && spoil_newest(&other, &list) {
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
    let next = standing.next();
    let id = EntryId::new(next.term.0 + 1, next.index);
    let then = standing.with(id, "it goes on");
    world
        .commit(id, "it goes on")
        .map_err(told("it does not go on"))?;
    let done = world
        .replica
        .checkpoint(b"")
        .map_err(told("no checkpoint can be taken"))?;
    if done.snapshot.is_none_or(|snapshot| snapshot.covers != id) {
        return Err("the checkpoint covers something else".to_string());
    }
    drop(world);
    let world = open(disk, dynamic).map_err(told("the next opening fails"))?;
    if world.book() != then.book || world.replica.report().replayed_entries != 0 {
        return Err(format!("the next opening finds {:?}", world.book()));
    }
    sound(&world.store, &world.log, &then.book, A)
}
