//! What a workload is: a prelude in which nothing fails, and acts in which everything may.

use everlog::Config;
use everlog::fs::{Fs, Profile, SimFs};

use super::harm::Plan;
use super::judge::Depth;
use super::model::Step;
use super::random::mix;
use super::run::{Ground, Run};
use super::tally::Tally;
use super::window::Window;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Open(Start),
    Write(Vec<Step>, Manner),
    /// Waits for every ticket.
    Wait,
    Sync,
    Work,
    Reclaim,
    /// Reads everything.
    Read,
    /// Looks at it through a view, beside the writer if there is one.
    View,
    Verify,
    Close,
    Kill,
    /// A power cut with the outcome of this seed.
    Cut(u64),
    Spoil(Spoil),
    /// The disk has so many bytes free from now on.
    Tight(u64),
    Loose,
}

/// How a journal is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Create,
    Either,
    /// What was given to the system is there.
    AfterKill,
    AfterCut,
}

/// How a write is handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Durable,
    Relaxed,
    Submit,
    SubmitRelaxed,
    Try,
}

/// What is done to the files, which is no damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoil {
    /// Every index is gone.
    NoIndexes,
    /// A creation was interrupted.
    HalfCreated,
    /// There are prepared files of sizes that nobody wants, and unfinished ones.
    OddSpares,
}

pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) config: Config,
    /// In which nothing fails.
    pub(crate) prelude: Vec<Act>,
    pub(crate) acts: Vec<Act>,
}

impl Spoil {
    pub(crate) fn apply(self, disk: &SimFs) {
        match self {
            Spoil::NoIndexes => {
                for path in disk.files().into_keys().filter(|path| path.ends_with(".idx")) {
                    disk.remove(&path).expect("the index is there");
                }
            }
            Spoil::HalfCreated => {
                disk.create_dir("journal").expect("an empty disk");
                let file = disk.create("journal/create.tmp").expect("an empty directory");
                file.write_all_at(&[7; 9000], 0).expect("a healthy disk");
            }
            Spoil::OddSpares => {
                let names = [
                    "71.spare",
                    "72.spare",
                    "73.spare",
                    "74.spare",
                    "75.tmp",
                    "76.tmp-idx",
                ];
                for (name, pages) in names.into_iter().zip([1, 3, 60, 5, 2, 1]) {
                    let file = disk.create(&format!("journal/{name}")).expect("a new name");
                    file.write_all_at(&vec![0; pages * 4096], 0)
                        .expect("a healthy disk");
                    // No life names a spare before that.
                    file.sync_data().expect("a healthy disk");
                }
            }
        }
    }
}

impl Workload {
    pub(crate) fn seed(&self) -> u64 {
        self.name
            .bytes()
            .fold(1, |seed, byte| mix(seed ^ u64::from(byte)))
    }

    /// What the prelude leaves.
    pub(crate) fn ground(&self) -> Ground {
        let empty = Ground {
            disk: SimFs::new(self.seed(), Profile::PosixWeak),
            window: Window::new(),
        };
        let tally = Tally::default();
        Run::new(self, &empty, &[], Depth::Slice, &tally).ground(&self.prelude)
    }

    /// Runs it on `ground`; a panic tells what is wrong.
    pub(crate) fn run(
        &self,
        ground: &Ground,
        plans: &[Plan],
        depth: Depth,
        tally: &Tally,
    ) -> Vec<super::saboteur::Site> {
        Run::new(self, ground, plans, depth, tally).whole(&self.acts)
    }
}
