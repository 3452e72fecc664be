//! Which locks were taken while which were held, over all schedules of a process: a cycle is a deadlock that some other
//! schedule has. A lock is known by where it was made, so that one schedule speaks for all journals.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;

/// Where a lock was made.
pub(super) type Site = &'static Location<'static>;

#[derive(Default)]
struct Order {
    /// What each of the model's threads holds.
    held: BTreeMap<usize, Vec<Site>>,
    /// Taken while the key was held.
    after: BTreeMap<Site, BTreeSet<Site>>,
}

std::thread_local! {
    static ORDER: RefCell<Order> = RefCell::default();
}

/// The thread is about to wait for the lock made at `site`. Panics if that closes a cycle.
pub(super) fn waits(site: Site) {
    let cycle = ORDER.with_borrow_mut(|order| order.waits(thread(), site));
    if let Some(held) = cycle {
        panic!(
            "the lock made at {site} is taken under the one made at {held}, and elsewhere the other way round"
        );
    }
}

pub(super) fn takes(site: Site) {
    ORDER.with_borrow_mut(|order| order.held.entry(thread()).or_default().push(site));
}

/// Also from a destructor after the end of a schedule, when there is no order left to speak of.
pub(super) fn releases(site: Site) {
    ORDER.with_borrow_mut(|order| {
        if let Some(held) = order.held.get_mut(&thread())
            && let Some(at) = held.iter().rposition(|held| *held == site)
        {
            held.remove(at);
        }
    });
}

fn thread() -> usize {
    shuttle::current::get_current_task().map_or(usize::MAX, usize::from)
}

impl Order {
    /// The held lock that the one made at `site` must come before, if there is one.
    fn waits(&mut self, thread: usize, site: Site) -> Option<Site> {
        let held = self.held.get(&thread)?.clone();
        for held in held {
            if self.after.entry(held).or_default().insert(site) && self.leads(site, held) {
                return Some(held);
            }
        }
        None
    }

    /// Whether `to` is taken under `from`, directly or not.
    fn leads(&self, from: Site, to: Site) -> bool {
        let mut seen = BTreeSet::from([from]);
        let mut open = vec![from];
        while let Some(site) = open.pop() {
            if site == to {
                return true;
            }
            open.extend(
                self.after
                    .get(site)
                    .into_iter()
                    .flatten()
                    .filter(|next| seen.insert(next)),
            );
        }
        false
    }
}
