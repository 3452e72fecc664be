//! Power cuts at every call to the disk: while commands run, while checkpoints are taken, and while the next life opens.

use everlog::Result;
use everlog::engine::EngineConfig;
use everlog::fs::SimFs;

use super::machine::{List, World, command, commands, try_world, world};
use super::support::{disk, keep_synced};

/// What was handed in, and what was replied to.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    issued: u32,
    replied: u32,
}

fn life(disk: &SimFs, told: &mut Told) -> Result<World> {
    let mut world = try_world(disk, List::default(), EngineConfig::new())?;
    for round in 0..4 {
        for _ in 0..2 {
            told.issued += 1;
            let reply = world.engine.execute(command(told.issued - 1))?;
            assert_eq!(reply, told.issued.to_string(), "replies are in order");
            told.replied += 1;
        }
        world.engine.checkpoint()?;
        if round == 1 {
            drop(world);
            world = try_world(disk, List::default(), EngineConfig::new())?;
        }
    }
    told.issued += 1;
    world.engine.execute(command(told.issued - 1))?;
    told.replied += 1;
    Ok(world)
}

/// The commands that were issued, up to some place, and at least those that were replied to.
fn check(disk: &SimFs, told: Told, story: &str) -> u32 {
    let world =
        try_world(disk, List::default(), EngineConfig::new()).unwrap_or_else(|e| panic!("{story}: {e:?}"));
    let found = world.commands();
    let count = u32::try_from(found.len()).unwrap();
    assert_eq!(found, commands(0..count), "{story}");
    assert!(
        (told.replied..=told.issued).contains(&count),
        "{story}: {count} of {told:?}"
    );
    assert!(
        world.engine.report().refused.is_empty(),
        "{story}: {:?}",
        world.engine.report()
    );
    count
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_that_was_replied_to() {
    let whole = disk(1);
    drop(life(&whole, &mut Told::default()).expect("the disk is fine"));
    let calls = whole.ops();
    let mut states = 0;
    for cut in 0..calls {
        let disk = disk(1);
        let mut told = Told::default();
        disk.stop_after(cut);
        // It may be cut in a call whose failure matters to nobody.
        drop(life(&disk, &mut told));
        for draw in 0..3 {
            let story = format!("cut at call {cut} of {calls}, drawn {draw}");
            let crashed = disk.crash(draw);
            let nested = crashed.fork();
            let count = check(&crashed, told, &story);
            // Once more, while the next life opens and goes on.
            nested.stop_after(1 + (cut * 7 + draw * 5) % 60);
            let mut again = Told {
                issued: count + 1,
                ..told
            };
            if let Ok(world) = try_world(&nested, List::default(), EngineConfig::new())
                && world
                    .engine
                    .execute(command(world.commands().len().try_into().unwrap()))
                    .is_ok()
            {
                again.replied = told.replied + 1;
                let _ = world.engine.checkpoint();
            }
            again.issued = told.issued + 1;
            check(&nested.crash(draw), again, &format!("{story}, and again"));
            states += 2;
        }
    }
    println!("figure: engine: {calls} calls, {states} crash states");
}

/// After many lives with checkpoints neither the log nor the store has more than the retention needs.
#[test]
fn checkpoints_keep_the_log_and_the_store_short() {
    let mut disk = disk(2);
    let mut done = 0;
    for _ in 0..30 {
        let world = world(&disk);
        world.execute(done..done + 5);
        done += 5;
        world.engine.checkpoint().unwrap();
        assert_eq!(world.commands(), commands(0..done));
        let kept = world.store.list().unwrap();
        assert!(kept.len() <= 2, "{kept:?}");
        let bounds = world.engine.log().bounds().unwrap();
        if done > 5 {
            let oldest = kept.last().unwrap().covers.index;
            assert_eq!(
                bounds.start,
                oldest + 1,
                "nothing that two snapshots hold, and all else"
            );
        }
        drop(world);
        disk = keep_synced(&disk);
    }
}
