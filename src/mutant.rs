//! The rules on which durability rests, by name, and a test build that removes one of them.
//!
//! Where the code orders two things or checks one, because otherwise something acknowledged could be lost, changed or called
//! damaged, the place names its rule: `if !removed(Rule::CarrySync) { .. }`. In every ordinary build [`removed`] is a constant
//! `false` and the compiler leaves nothing of it. Built with `--cfg everlog_mutants`, the rule that the environment variable
//! `EVERLOG_MUTANT` names is removed, and some proof must fail then: `scripts/mutants` sees to that for each of them. It is a cfg and
//! not a feature, because features reach users.
//!
//! Where one rule is kept in several ways, each of which suffices, all of them have its name and go together.
//!
//! What is not here, because taking it away alone changes no outcome; the rule that covers it is:
//!
//! * The comparison of a frame's incarnation, where a log's frames are settled or replayed one after another: serials tell
//!   entries apart in memory, and on disk no frame of an incarnation follows the creation of the next.
//! * The same comparison where a segment's blocks replace offsets in memory: what a deleted log had is not among them.
//! * The id and the salt of a segment in its index: the end that must agree has the id, and a checksum over the salt (`IndexEnd`).
//! * That a purge lies below the floor as a reason of its own to restate a log: its creation, facts or reset lies no higher (`RestateLogs`).
//! * The last term in restated facts: entries that stood below the floor are taken by a purge, which has a term of its own, before
//!   anybody can ask (`RestatePurged`).
//! * That a sequence lies above those of batches that were cut: nothing depends on them, as DESIGN.md says.
//! * That a batch ends within its segment: a sealed one must end where its successor says (`SealedEnd`), and in the last one payloads
//!   are read (`LastPayloads`).
//! * That a serial tells a cell's statement from a later one: the later one is settled behind it.

#[cfg(everlog_mutants)]
use crate::sync::OnceLock;

macro_rules! rules {
    ($($class:literal: $($name:ident = $what:literal,)*)*) => {
        /// What can be removed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(not(feature = "snapshot"), expect(dead_code, reason = "its rules are not there, either"))]
        pub(crate) enum Rule {
            $($(#[doc = $what] $name,)*)*
        }

        #[cfg(everlog_mutants)]
        impl Rule {
            /// Each with its name, its class, and what it says.
            const ALL: &[(Rule, &str, &str, &str)] =
                &[$($((Rule::$name, stringify!($name), $class, $what),)*)*];
        }
    };
}

rules! {
"sync":
    BatchSync = "a batch is synced before anybody is told that it is durable",
    CarrySync = "the unit that carries a tail is synced before open returns",
    MarkSync = "a closing mark is synced",
    CarriedMarkSync = "the mark behind a carried tail is synced when nothing else is written",
    FirstOpeningSync = "the first segment is synced before it gets its name",
    SpareSync = "a file of zeros is synced before it gets a name",
    CloseSync = "close syncs what relaxed writes left",
    RelaxedDelaySync = "relaxed writes are synced within their delay",
    RelaxedBytesSync = "so many relaxed bytes are synced at once",
    GroupSync = "a group is synced if one write in it must be durable",
    AckAfterFlush = "nobody is told before the flush returned",
"directory sync":
    RootSync = "create syncs the directory in which it made the journal's",
    FirstNameSync = "create syncs the directory after it named the first segment",
    NextNameSync = "the name of a segment is synced before anything is written to it",
    SpareNameSync = "the name of a spare is synced before it counts as reserve",
    OpenRootSync = "open syncs the directory in which it found the journal's",
    OpenNamesSync = "open syncs the names that it believed",
    UnlinkSync = "the directory is synced when superseded files were removed",
"zeroing":
    WrittenZeros = "a segment is zeros that were written, not a length that was set",
    SpareIsBlank = "a spare is used only if it is blank",
    FailedCarryIsLeft = "what could not be carried leaves no file to go on in",
    SpareIsUsable = "a spare that cannot be opened is passed over",
"checksum":
    OpeningCrc = "the checksum of an opening is checked",
    HeaderCrc = "the checksum of a batch header is checked",
    TablesCrc = "the checksum over frame headers and terms is checked",
    FrameCrc = "the checksum of one frame header is checked",
    PayloadCrc = "the checksum of a payload is checked",
    IndexCrc = "the checksum of an index is checked",
    BlockCrc = "the checksum of a block of an index is checked",
"salt":
    SaltIsDrawn = "each segment draws a salt of its own",
    HeaderSalt = "a batch header must have the salt of its segment",
    FrameSalt = "the checksum of a frame header includes the salt of its segment",
"own place":
    FileIsOneSegment = "a file that stands under two names is one segment, or goes",
    SecondNameMayOutlive = "a second name that outlives a superseded segment is no foreign file",
    HeaderOffset = "a batch header must name the offset at which it stands",
    HeaderSegment = "a batch header must name the segment in which it stands",
    FrameIsWanted = "a frame that is read must be the one that was asked for",
    OpeningSegment = "an opening under the name of another segment is refused",
    OpeningJournal = "an opening of another journal is refused",
    IdBound = "an id that no journal reaches is refused",
"chain":
    HeaderChain = "a batch header must name the checksum of the one before",
    HeaderSequence = "a batch must have the next sequence",
    SealedEnd = "a sealed segment must end where its successor says",
    IndexEnd = "an index must be of the end that the successor says",
    MissingIsDamage = "a predecessor that is missing is damage",
    LostIsDamage = "a predecessor without an opening is damage",
    ReachesItsEnd = "a predecessor that is too short for its recorded end is damage",
    PredecessorIsProven = "the predecessor is the last segment with a proven byte",
    EndIsSynced = "a recorded end is that of the last good sync",
"durable-through":
    DurableThroughIsStated = "a batch header states what is durable",
    DurableThroughIsSynced = "a batch header states nothing that no sync covered",
    DurableThroughOfSegment = "a durable-through is of its own segment",
    TailIsUnproven = "what no durable-through covers is not taken for durable",
"witness":
    WitnessedIsDamage = "a bad place that was acknowledged is damage and no tear",
    WitnessesBehind = "behind a bad place witnesses are looked for",
    LostOpeningWitness = "a later header proves an opening that is lost",
    UnitWitness = "a later header proves a unit that rotted",
    IdleMark = "an idle journal writes a mark",
    SyncedMark = "a journal that stays idle writes a mark that is synced",
    ClosingMark = "close writes a mark",
    MarkBlock = "a synced mark begins in a block of its own",
    MarkRoom = "a segment keeps room for its closing mark",
"verdict":
    UnreadableIsNoTear = "what cannot be read is neither torn nor zeros",
    UnreadableOpening = "an opening that cannot be read is neither void nor lost",
    BlankIsTheEnd = "zeros up to the end were never written, and are not cut",
    CutIsReported = "what is cut is reported",
    VoidIsReported = "a segment that is void is reported",
    FileLength = "a file that is shorter than its opening says is damaged",
    LastPayloads = "the last segment is verified with its payloads",
    NewerVersion = "a newer version is refused",
    UnknownFeature = "an unknown feature is refused",
    DamageOfItsLog = "damage of one frame leaves the other logs of its batch",
    GapIsDamage = "what contradicts the items before it is damage",
    StatedIsThere = "entries that facts count and nothing took must be there",
    CellsAreRead = "open reads the cells that live in sealed segments",
    WindowIsNoEvidence = "only the file itself is evidence of damage, not a window read before",
"second opening":
    SecondCopyIsWritten = "an opening is written twice",
    SecondCopyIsRead = "the second copy of an opening is read",
    CopiesAgree = "two copies that verify and differ are damage",
"carry":
    CarryTail = "the tail is carried",
    UnitIsWhole = "an opening counts only with the whole batch that it carries",
    UnitIsNamed = "the carried batch is the one that the opening names",
    HollowOpening = "an unproven opening with nothing behind it is superseded at once",
    CarryTwice = "a carry that fails is tried once more in a fresh file",
    CarryMark = "a mark follows a carried tail at once",
    MarksAreNotCarried = "marks alone are not carried",
    SupersededGoes = "what a carry superseded is removed before open returns",
"rotation":
    SyncBeforeRotation = "a segment is synced before the next one is written",
    IdsRise = "ids rise along the chain: one that was overtaken is not used",
    IdsAreFresh = "a new id lies above that of every file",
    NamedAheadIsKept = "a blank file that was named ahead of need is not removed",
"floor":
    FloorBeforeUnlink = "files are removed after the floor was written",
    FloorSync = "files are removed after the floor was synced",
    FloorIsLast = "the floor stands behind all its restatements",
    LiveHoldTheFloor = "the floor stays below every entry that is still there",
    FloorIsWorthIt = "the floor rises only where it frees more than it restates",
    FloorEndsTheWalk = "files below the floor are not missed",
    FloorOfItself = "a floor above the segment that states it is damage",
"restatement":
    RestateLogs = "the existence and bounds of a log are restated",
    RestateCells = "cells are restated",
    FactsAlone = "each fact is judged alone",
    RestateFirst = "facts state the first index",
    RestateNext = "facts state the next index, and so the last id",
    RestatePurged = "facts state the purged id",
    RestateIncarnation = "facts state the incarnation",
    CounterTravels = "openings and floors state the next incarnation",
"incarnation":
    IncarnationIsFresh = "a log that is created again has a new incarnation",
    IncarnationOfHandle = "a handle of a deleted log is not one of the next",
    IncarnationOfReplay = "a frame of a newer incarnation begins the log anew",
"deletion":
    DeleteOnProof = "only a floor that is proven permits removing files",
    DeleteAfterOpening = "nothing is removed before an opening of this life is synced",
    CarriedFloor = "a floor that stands in the tail is proven by carrying it",
"failure":
    FailedFileEnds = "nothing is retried on a file that failed",
    UnsyncedIsRehomed = "what no sync covered goes into a fresh segment",
    RehomedSync = "what was re-homed is synced",
    RehomedOpensLast = "what was written and is re-homed stands in the fresh segment before that has its opening",
    TwoFailuresClose = "two failures in a row close the journal to writers",
    FailedMarkEnds = "a segment whose mark failed takes nothing more",
    ShortWriteGoesOn = "a short write is continued",
    InterruptedRepeats = "an interrupted write is repeated",
    PanicIsLast = "after a panic in a flush nothing is flushed",
"truncate":
    DurableEndFalls = "the durable end falls when a truncate is sequenced",
    SettleItsEntry = "a sync settles the entry that was written, not one that took its index since",
"full disk":
    ReserveFirst = "appends wait until the reserve stands",
    ReserveSpare = "appends never take the last spare",
    CarryFile = "a file for whatever must be carried stands ready",
    CarryFileGrows = "a larger entry makes that file larger first",
    UnsyncedBound = "what is unsynced stays within what the reserve can carry",
    RehomingTakesReserve = "appends wait for the reserve after a re-homing, which may have taken it",
    RehomedTermsAreOne = "a re-homing syncs once, however its terms fall into batches",
    UnsyncedIsRehomable = "without a file for carrying no more is unsynced than one segment takes over",
    RestatedBytes = "a restatement is measured when it gets its place",
"view":
    ViewLooksAgain = "what a view finds is what it has seen twice",
    ViewShowsProven = "beside a writer what is unproven is not there yet",
"life":
    ClosedMakesNothing = "a closed journal makes and names no files",
    TimeNeverFalls = "time in headers never falls",
"snapshot":
    SnapshotPackSync = "a pack is synced before an index names it",
    SnapshotPackNameSync = "the name of a pack is synced before an index names it",
    SnapshotIndexSync = "an index is synced before it gets its name",
    SnapshotIndexNameSync = "the name of an index is synced before a snapshot is committed",
    SnapshotNamesSync = "a store syncs the names that it finds before it believes them",
    SnapshotDirSync = "a store syncs the directory in which it finds or makes its own",
    SnapshotRemovalSync = "the removal of an index is synced before its packs are removed",
    SnapshotNamesInTurn = "a name is given or taken, and synced, before the directory changes again",
    SnapshotFailedNameGoes = "a name that could not be synced is removed",
    PackBeforeIndex = "a pack is put before the index that names it",
    IndexGoesFirst = "an index is removed before its packs are",
    SharesCommitted = "a chunk is shared only with a committed snapshot",
    SharesVerified = "a chunk is shared only if it was read and verified",
    VerifiesPastCache = "what memory holds of a chunk proves nothing",
    SharesWhole = "a chunk that its pack cuts short is not shared",
    CreationsHoldPacks = "a creation holds the packs that it shares chunks of",
    ReadersHoldPacks = "a reader holds its snapshot and its packs",
    RewriteBeforeRemoval = "a pack is removed after every index that names it was replaced",
    GoodCopyStays = "before the good copy of a chunk goes the indexes that stay name it, or it stays",
    CopyIsReadBack = "a rewriting reads back what it copied and put before the originals go",
    UnreadableKeepsPacks = "while an index cannot be read no pack is removed",
    StaleGoesFirst = "older generations of an index are removed before packs are",
    DamagedIsNotCounted = "a snapshot that is known to be damaged does not count among the newest",
    ChunkIsVerified = "a chunk that is read must have its name",
    ReadBackIsChecked = "a snapshot is committed only if its chunks read back",
    SnapshotIndexCrc = "the checksum of an index of a snapshot is checked",
    SnapshotVersion = "a newer version of packs and indexes is refused",
    EarlySyncFails = "a pack whose sync failed while it was written is not committed",
    PinSync = "a pin is synced before it gets its name",
    PinNameSync = "the name of a pin is synced before a snapshot counts as pinned",
    PinsAreLoaded = "a pin counts in every process, and not only where it was made",
    UnreadablePinHolds = "a pin that cannot be read holds its snapshot",
    CheckReadsIndex = "a snapshot that a log is purged to is read with its index",
    MissingPackLooksAgain = "a view whose pack is missing reads the index again",
"engine":
    ApplyDurable = "an entry is applied, and replied to, when a sync covered it",
    CheckpointBeforePurge = "the log is purged after the snapshot was committed and read back",
    PurgeToRetained = "the log is purged only to the oldest snapshot that is kept to fall back to",
    FallbackIsRead = "the log is purged only to a snapshot that was read just before",
    AheadIsNotCounted = "snapshots ahead of what was applied keep no log and take no place",
    DamagedIsTakenAnew = "a state whose snapshot is known to be damaged is taken anew",
    GivenUpIsNotCommitted = "a checkpoint that was given up is not committed",
    CheckpointBehindLog = "a replica takes no snapshot that its log does not reach durably",
    CheckpointOfOwnLog = "a replica takes no snapshot of an entry in whose place its log has another",
    UnreadEndsOpening = "what the device does not give, and may be ahead of the log, ends an opening",
    FallbackReachesLog = "a snapshot is used only if the log begins where it ends, or before",
    SnapshotAheadIsDamage = "a checkpoint ahead of its log is damage",
    InstallIsVerified = "a snapshot is verified before it replaces a state",
    InstalledBeforeLog = "a machine that persists itself is asked for an installed snapshot before its log is",
    VerifiedBeforeItself = "a machine that persists itself is given only what was verified before",
    InstallIsFinished = "a log that ends before an installed snapshot is reset to it",
    FailedIsNotCaptured = "a machine that failed gets no checkpoint",
    SessionsAreKept = "the table of clients is a part of a snapshot",
    OpeningIsSynced = "what stands in the log when an engine opens is synced before it is applied",
    SkipIsSynced = "a skip is durable when it returns",
    SkipsEndWithLog = "a skip of an entry that the log has lost is forgotten",
    OpeningHolds = "a log is held still while a replica is opened on it",
    HeldLogRefuses = "the log of an engine takes nothing from others",
    AppliedIsNotTakenBack = "what was applied is not truncated",
}

/// Whether `rule` is removed: never, in an ordinary build.
#[cfg(not(everlog_mutants))]
pub(crate) const fn removed(_rule: Rule) -> bool {
    false
}

/// Nothing can change that: it is known when the crate is compiled.
#[cfg(not(everlog_mutants))]
const _: () = assert!(!removed(Rule::BatchSync));

/// Whether `rule` is the one that this process does without.
#[cfg(everlog_mutants)]
pub(crate) fn removed(rule: Rule) -> bool {
    static CHOSEN: OnceLock<Option<Rule>> = OnceLock::new();
    *CHOSEN.get_or_init(chosen) == Some(rule)
}

/// The rule that `EVERLOG_MUTANT` names. A name that is no rule's would prove nothing.
#[cfg(everlog_mutants)]
fn chosen() -> Option<Rule> {
    let name = std::env::var_os("EVERLOG_MUTANT")?;
    let rule = Rule::ALL.iter().find(|(_, known, ..)| name == *known);
    match rule {
        Some((rule, ..)) => Some(*rule),
        None => panic!("EVERLOG_MUTANT is {name:?}, which is no rule; scripts/mutants --list shows them"),
    }
}

#[cfg(all(test, everlog_mutants))]
mod tests {
    use super::*;

    /// Prints them for `scripts/mutants`: name, class, what it says, between tabs.
    #[test]
    fn every_rule_has_a_name_of_its_own() {
        let mut names = std::collections::BTreeSet::new();
        for (_, name, class, what) in Rule::ALL {
            println!("rule: {name}\t{class}\t{what}");
            assert!(names.insert(name), "{name} stands there twice");
        }
    }
}
