//! What must hold once requests do not fail any more: reads go on, writes do where
//! the log was not hurt, and the next opening finds all that was promised, comes to
//! rest, leaves nothing over, and survives the loss of power.

use std::ops::ControlFlow;

use ourodb::sim::Faults;
use ourodb::{Finding, Options};

use super::play::{DIR, Play, SECOND_NS, Stop};
use super::variant::{Befell, Variant};
use crate::history::Wrong;

/// How long the background may take until it is done.
const REST_NS: u64 = 30 * SECOND_NS;

/// Judges what a script has left; `power_cut` says how its process ends. How many
/// faults there were.
pub(crate) fn judge(play: &mut Play, power_cut: bool) -> Result<u64, Wrong> {
    let befell = Befell::of(&play.sim, &play.variant);
    play.sim.set_faults(Faults::default());
    // From here on nothing explains an error.
    play.variant = Variant::default();
    let judged = (|| {
        if play.db.is_some() {
            play.check().map_err(|stop| wrong("reads do not go on", stop))?;
            // What is tried again from time to time was.
            play.rest(3 * SECOND_NS);
            if !befell.poisons() {
                writes_go_on(play).map_err(|stop| wrong("writes do not go on", stop))?;
            }
        }
        if power_cut {
            play.power_cut();
        } else {
            play.kill();
        }
        reopen(play).map_err(|stop| wrong("after the faults", stop))
    })();
    judged.map(|()| befell.count)
}

fn wrong(when: &str, stop: Stop) -> Wrong {
    match stop {
        Stop::Wrong(wrong) => format!("{when}: {wrong}"),
        Stop::Refused => format!("{when}: the database does not open"),
    }
}

fn writes_go_on(play: &mut Play) -> Result<(), Stop> {
    for key in 0..play.history.len().min(4) {
        play.put(key, 900)?;
    }
    play.flush()?;
    play.check()
}

fn reopen(play: &mut Play) -> Result<(), Stop> {
    play.open(1)?;
    play.check()?;
    play.put(0, 100)?;
    play.flush()?;
    play.rest(REST_NS);
    let debt = play.db.as_ref().map_or(0, |db| db.stats().compaction_debt_bytes);
    if debt > 0 {
        return Err(Stop::Wrong(format!(
            "compaction does not come to rest: {debt} bytes are left"
        )));
    }
    play.close()?;
    clean(&play.options(1))?;
    play.power_cut();
    play.open(2)?;
    play.check()?;
    play.close()
}

/// Verification finds no fault, and no file that nothing needs.
fn clean(options: &Options) -> Result<(), Wrong> {
    let mut findings = Vec::new();
    let verified = ourodb::verify(DIR, options, |finding| {
        match finding {
            Finding::Fault(fault) => findings.push(fault.to_string()),
            Finding::Orphan(path) => findings.push(format!("{} is left over", path.display())),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    verified.map_err(|error| format!("verify failed: {error}"))?;
    match findings.is_empty() {
        true => Ok(()),
        false => Err(format!("verify found: {}", findings.join("; "))),
    }
}
