//! Syncing a file while more is written to it.
//!
//! A sync at the end waits for the device to take everything, and cutting and naming chunks before it keeps the processors busy while the
//! device has nothing to do. So the sync of what is written already runs beside the work on what follows.

use std::fmt;
use std::io;

use crate::fs::File;
use crate::sync::plain::channel;
use crate::sync::{Arc, thread};

/// A thread that syncs a file whenever it is told to.
pub(super) struct Behind {
    tell: channel::Sender<()>,
    thread: thread::JoinHandle<io::Result<()>>,
}

impl Behind {
    /// `None` if no thread can be had.
    pub(super) fn start(file: &Arc<dyn File>) -> Option<Behind> {
        // One sync that waits is enough: it covers everything that was written before it begins.
        let (tell, told) = channel::bounded(1);
        let file = Arc::clone(file);
        let run = move || told.iter().try_for_each(|()| file.sync_data());
        let thread = thread::spawn("everlog-sync", run).ok()?;
        Some(Behind { tell, thread })
    }

    /// Begins to sync what was written so far.
    pub(super) fn sync(&self) {
        // Full: one is about to begin. Closed: one has failed, which whoever ends this is told.
        let _ = self.tell.try_send(());
    }

    /// Waits for the last one. **A failure that it has seen is told nobody else**: after one the file is of no use, whatever a later sync says.
    pub(super) fn finish(self) -> io::Result<()> {
        drop(self.tell);
        let panicked = |_| io::Error::other("the thread that syncs the file panicked");
        self.thread.join().map_err(panicked).flatten()
    }
}

impl fmt::Debug for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behind").finish_non_exhaustive()
    }
}
