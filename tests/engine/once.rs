//! Commands that take effect once.

use everlog::ErrorKind;
use everlog::engine::EngineConfig;

use super::machine::{List, command, try_world, world};
use super::support::{disk, keep_synced};

#[test]
fn a_command_takes_effect_once_across_crashes_and_checkpoints() {
    let mut disk = disk(1);
    for checkpoint in [false, true, true, true] {
        let world = world(&disk);
        let before = world.commands().len();
        if before == 0 {
            assert_eq!(world.engine.execute_once(7, 1, command(0)).unwrap(), "1");
            assert_eq!(world.engine.execute_once(8, 5, command(1)).unwrap(), "2");
        }
        // What was replied then, whatever came between.
        world.execute(10..11);
        assert_eq!(world.engine.execute_once(7, 1, command(0)).unwrap(), "1");
        assert_eq!(world.engine.execute_once(8, 5, command(1)).unwrap(), "2");
        let old = world.engine.execute_once(8, 4, command(1)).unwrap_err();
        assert_eq!(old.kind(), ErrorKind::Invalid);
        assert_eq!(world.commands().len(), before.max(2) + 1);
        if checkpoint {
            world.engine.checkpoint().unwrap();
        }
        drop(world);
        disk = keep_synced(&disk);
    }
}

#[test]
fn a_client_goes_on_with_its_next_number() {
    let disk = disk(1);
    let world = world(&disk);
    for sequence in 1..=5 {
        let reply = world.engine.execute_once(7, sequence, command(0)).unwrap();
        assert_eq!(reply, sequence.to_string());
    }
    world.engine.checkpoint().unwrap();
    drop(world);
    let world = super::machine::world(&keep_synced(&disk));
    assert_eq!(world.engine.execute_once(7, 5, command(0)).unwrap(), "5");
    assert_eq!(world.engine.execute_once(7, 6, command(0)).unwrap(), "6");
}

/// Which clients were forgotten when a command was applied is a part of what happened: replay under another setting must decide as it was
/// decided then, or a command that was replied to takes no effect, or one takes effect twice.
#[test]
fn replay_forgets_the_clients_that_were_forgotten_then() {
    let few = || EngineConfig::new().clients(1);
    let many = || EngineConfig::new().clients(100);
    for (then, later, count) in [(few(), many(), "3"), (many(), few(), "2")] {
        let disk = disk(1);
        let world = try_world(&disk, List::default(), then).unwrap();
        world.engine.execute_once(7, 1, command(0)).unwrap();
        world.engine.execute_once(8, 1, command(1)).unwrap();
        // With one client remembered the first is forgotten by now, and its command is new.
        world.engine.execute_once(7, 1, command(0)).unwrap();
        assert_eq!(world.commands().len().to_string(), count);
        let before = world.commands();
        drop(world);
        let world = try_world(&keep_synced(&disk), List::default(), later).unwrap();
        assert_eq!(world.commands(), before);
    }
}
