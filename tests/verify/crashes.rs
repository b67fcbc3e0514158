//! What a crash leaves is sound: torn tails, mappings, unfinished files.

use ourodb::sim::{Faults, Sim};
use ourodb::{Db, Durability, Error};

use super::{DIR, assert_clean, options, value};

fn durability(i: usize) -> Durability {
    match i % 3 {
        0 => Durability::Durable,
        1 => Durability::ProcessSafe,
        _ => Durability::Relaxed { within: std::time::Duration::from_millis(5) },
    }
}

/// Sessions that end at any moment, in any way; between them nothing is wrong.
#[test]
fn after_crashes_nothing_is_wrong() {
    let (mut torn, mut maps) = (0, 0);
    for seed in 0..60 {
        let sim = Sim::new(seed);
        sim.set_faults(Faults::default().reorder(true).delay_ns(0..=1_000_000));
        for session in 0..5 {
            let when = format!("seed {seed}, session {session}");
            let mix = seed * 7 + session * 13;
            let ends = mix % 4;
            let db = Db::open(DIR, options(&sim)).expect("open");
            if ends > 0 {
                sim.crash_after(5 + mix * 31 % 400, ends > 1);
            }
            // It may end where the machine does.
            let ended = sim.until_crash(|| {
                session_of(&db, mix as usize).expect("a session");
                if ends == 0 {
                    db.close().expect("close");
                }
            });
            if ended.is_some() && ends > 0 {
                sim.kill();
            }
            drop(db);
            let counts = assert_clean(&sim, &when);
            torn += counts.torn_bytes;
            maps += counts.wal_maps;
        }
    }
    assert!(torn > 0 && maps > 0, "{torn} bytes torn, {maps} mappings");
}

/// Writes of every durability, long and short, and flushes between them.
fn session_of(db: &Db, mix: usize) -> Result<(), Error> {
    for i in 0..mix % 80 {
        let key = format!("key-{}", (i * 31 + mix) % 90).into_bytes();
        let value = match i % 7 {
            3 => vec![i as u8; 9000],
            5 => vec![i as u8; 65_600 + mix * 300],
            _ => value(i, mix),
        };
        db.put(&key, &value).durability(durability(i + mix)).wait()?;
        if i % 25 == 24 {
            db.flush().wait()?;
        }
    }
    Ok(())
}

/// A creation that was interrupted leaves no fault, and no database either
/// until there is an identity.
#[test]
fn while_a_database_is_created() {
    for at in 0..120 {
        let sim = Sim::new(at);
        sim.set_faults(Faults::default().fail_kth(at + 1, ourodb::sim::FaultKind::Io, true));
        if let Ok(db) = Db::open(DIR, options(&sim)) {
            drop(db);
        }
        sim.set_faults(Faults::default());
        sim.power_cut();
        let verified = ourodb::verify(DIR, &options(&sim), |finding| match finding {
            ourodb::Finding::Fault(fault) => panic!("request {at}: {fault}"),
            _ => std::ops::ControlFlow::Continue(()),
        });
        if let Err(error) = verified {
            assert_eq!(error.kind(), ourodb::ErrorKind::NotFound, "{error}");
        }
        Db::open(DIR, options(&sim)).expect("open").close().expect("close");
        assert_clean(&sim, "created");
    }
}
