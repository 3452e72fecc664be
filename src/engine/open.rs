//! Opening an engine: the log held, the machine restored, the entries behind it replayed.

use super::cadence::{Cadence, Limits};
use super::config::EngineConfig;
use super::core::{Core, about};
use super::handle::Shared;
use super::machine::{Persistence, StateMachine};
use super::replay::replay;
use super::report::EngineReport;
use super::restore::Source;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Bad, Command, decode_skips, encode_skips};
use crate::journal::{HELD_CELL, Holder, Journal, What, WriteBatch};
use crate::log::Log;
use crate::mutant::{Rule, removed};
use crate::segment::run::LentEntry;
use crate::snapshot::{Origin, Store};
use crate::types::{EntryId, LogKey};

pub(super) fn open<M: StateMachine>(
    journal: &Journal,
    key: LogKey,
    store: &Store,
    machine: M,
    config: EngineConfig,
) -> Result<Shared<M>> {
    config.validate()?;
    let started = config.clock.now();
    let holding = journal.hold(key, Holder::Engine)?;
    let mut report = EngineReport::default();
    let log = log(journal, key, store, &machine)?;
    // Raw appends from before the log was held may still be on their way: they are entries like all others, and applied when durable.
    if !removed(Rule::OpeningIsSynced) {
        journal.sync()?;
    }
    let mut core = Core::new(machine);
    core.skip(living_skips(&log)?);
    let source = Source {
        store,
        key,
        log: Some(&log),
        config: &config,
    };
    source.restore(&mut core, &mut report)?;
    let bounds = log.bounds()?;
    let start = core.applied.map_or(bounds.start, |applied| applied.index + 1);
    holding.applied_to(bounds.end);
    let replayed = replay(&log, start..bounds.end, &config, &mut report, &mut |entry| {
        replay_one(&mut core, key, entry)
    });
    report.total = config.clock.since(started);
    replayed?;
    report.skipped = core.skipped.clone();
    for id in &report.skipped {
        tracing::warn!(%key, %id, "an entry is skipped: the state lacks its effect");
    }
    let cadence = cadence(&config, &report);
    tracing::info!(%key, applied = ?core.applied, total = ?report.total, "an engine was opened");
    Ok(Shared::new(
        log,
        store.clone(),
        config,
        report,
        holding,
        core,
        cadence,
    ))
}

fn replay_one<M: StateMachine>(core: &mut Core<M>, key: LogKey, entry: &LentEntry<'_>) -> Result<()> {
    let command = Command::decode(entry.payload()).map_err(|bad| {
        let text = format!("entry {} of log {key} is not one of an engine: {bad}", entry.id);
        about(ErrorKind::Unsupported, entry.id, text)
    })?;
    core.apply(entry.id, &command).map(drop)
}

fn cadence(config: &EngineConfig, report: &EngineReport) -> Cadence {
    let mut cadence = Cadence::new(Limits {
        restart_within: config.restart_within,
        bytes: config.checkpoint_bytes,
        entries: config.checkpoint_entries,
    });
    if let Some(snapshot) = &report.snapshot {
        cadence.restored(snapshot.bytes, report.restore);
    }
    cadence.replayed(report.replayed_entries, report.replayed_bytes, report.replay);
    cadence
}

/// The log of the engine. It is created only if nothing says that there was one.
fn log<M: StateMachine>(journal: &Journal, key: LogKey, store: &Store, machine: &M) -> Result<Log> {
    match journal.log(key) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        found => return found,
    }
    let newest = store.list_of(key)?.into_iter().next();
    let own = match machine.persistence() {
        Persistence::Itself(durable) => durable,
        Persistence::Snapshots => None,
    };
    let missed = match newest {
        Some(newest) if newest.origin != Origin::Installed => Some(newest.covers),
        _ => own,
    };
    if let Some(missed) = missed.filter(|_| !removed(Rule::SnapshotAheadIsDamage)) {
        journal.expect_at_least(key, missed)?;
    }
    if let Some(damage) = store.damage().into_iter().next() {
        // It may be the snapshot that would have missed the log.
        let what =
            format!("there is no log {key}, and an index of a snapshot that may know of it is unreadable");
        return Err(damage.error.recast(ErrorKind::Damaged, &what));
    }
    let mut batch = WriteBatch::of_holder();
    batch.push(key, What::Create(0), &[]);
    journal.write(batch)?;
    journal.log(key)
}

/// The entries that were skipped, but for those that the log has lost, which somebody has accepted: they lie beyond its end, or another entry
/// stands in their place. What gets such an index is not what was skipped, so they are forgotten, durably, before there is one more.
fn living_skips(log: &Log) -> Result<Vec<EntryId>> {
    let mut skipped = skips(log)?;
    let (all, end) = (skipped.len(), log.bounds()?.end);
    let replaced = |id: &EntryId| log.term_at(id.index).is_ok_and(|term| term != id.term);
    skipped.retain(|id| id.index < end && !replaced(id));
    if skipped.len() < all && !removed(Rule::SkipsEndWithLog) {
        set_skips(log, &skipped)?;
        tracing::warn!(key = %log.key(), end, "skips of entries that the log has lost are forgotten");
    }
    match removed(Rule::SkipsEndWithLog) {
        true => skips(log),
        false => Ok(skipped),
    }
}

fn set_skips(log: &Log, skipped: &[EntryId]) -> Result<()> {
    let mut batch = WriteBatch::of_holder();
    batch.set(log.key(), HELD_CELL, encode_skips(skipped));
    match removed(Rule::SkipIsSynced) {
        true => log.journal().write_relaxed(batch).map(drop),
        false => log.journal().write(batch).map(drop),
    }
}

/// The entries that were skipped, as the log's cell says.
fn skips(log: &Log) -> Result<Vec<EntryId>> {
    let Some(value) = log.cell(HELD_CELL)? else {
        return Ok(Vec::new());
    };
    decode_skips(&value).map_err(|bad: Bad| {
        let text = format!(
            "cell {HELD_CELL} of log {} holds no skipped entries: {bad}",
            log.key()
        );
        Error::new(ErrorKind::Unsupported, text)
    })
}

/// Has the engine of log `key` pass over the entry `id` from its next opening on: the state will lack its effect, and every report says so
/// for ever. For an entry that the machine cannot apply ([`ApplyFailed`](ErrorKind::ApplyFailed)), when no machine that could is to be had.
///
/// Durable on return. Skipping it again changes nothing.
///
/// # Errors
/// `Busy` while an engine stands on the log. `NotFound` if the log has no such entry, `Purged` if it had: then the effect is in a snapshot.
/// `Invalid` if a snapshot in `store` holds its effect although the log still has it, if the entry at this index has another term, or
/// after some 2,000 skips.
///
/// ```
/// use everlog::engine::{Capture, Engine, EngineConfig, StateMachine, skip};
/// use everlog::snapshot::{Store, StoreConfig};
/// use everlog::{Config, ErrorKind, Journal, LogKey};
///
/// struct Fragile(u64);
/// impl StateMachine for Fragile {
///     fn apply(&mut self, _: everlog::EntryId, command: &[u8]) -> bytes::Bytes {
///         assert_ne!(command, b"7", "seven is not supported");
///         self.0 += 1;
///         self.0.to_string().into()
///     }
/// #    fn capture(&self) -> Capture { let n = self.0; Capture::new(move |into| into.write_all(&n.to_le_bytes())) }
/// #    fn restore(&mut self, from: &mut dyn std::io::Read) -> std::io::Result<()> {
/// #        let mut n = [0; 8];
/// #        from.read_exact(&mut n)?;
/// #        self.0 = u64::from_le_bytes(n);
/// #        Ok(())
/// #    }
/// #    fn clear(&mut self) { self.0 = 0; }
///     // ..
/// }
///
/// # let dir = tempfile::tempdir()?;
/// # let journal = Journal::create(dir.path(), Config::new().segment_bytes(1 << 20))?;
/// # let store = Store::open(dir.path(), StoreConfig::new())?;
/// let open = || Engine::open(&journal, LogKey(1), &store, Fragile(0), EngineConfig::new());
/// let engine = open()?;
/// engine.execute(b"6")?;
/// let error = engine.execute(b"7").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::ApplyFailed);
/// drop(engine);
///
/// let entry = open().unwrap_err().entry().expect("it says the same");
/// skip(&journal, &store, LogKey(1), entry)?;
/// let engine = open()?;
/// assert_eq!(engine.execute(b"8")?, "2");
/// assert_eq!(engine.report().skipped, [entry]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn skip(journal: &Journal, store: &Store, key: LogKey, id: EntryId) -> Result<()> {
    let _holding = journal.hold(key, Holder::Engine)?;
    let log = journal.log(key)?;
    if log.purged()?.is_some_and(|purged| id.index <= purged.index) {
        let text = format!("entry {id} of log {key} was purged; a snapshot holds its effect");
        return Err(Error::new(ErrorKind::Purged, text));
    }
    let term = log.term_at(id.index)?;
    if term != id.term {
        let text = format!("entry {} of log {key} has term {term}, not {}", id.index, id.term);
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    let mut skipped = skips(&log)?;
    if skipped.contains(&id) {
        return journal.sync();
    }
    if store.list_of(key)?.iter().any(|one| id.index <= one.covers.index) {
        let text = format!("a snapshot of log {key} holds the effect of entry {id}");
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    skipped.push(id);
    skipped.sort_by_key(|id| id.index);
    set_skips(&log, &skipped)?;
    tracing::warn!(%key, %id, "an entry will be skipped");
    Ok(())
}
