//! Reads that all who miss something at once share.

use std::sync::Arc;

use crate::base::error::{ErrorKind, Result};
use crate::cache::{Flights, Join, Lead};
use crate::io::{DetachedRead, Io, IoBuf};

/// Reads what has this number, or waits for whoever reads it already; `None` when
/// it is in memory now, as `is_there` says. A read that fails is tried once more.
///
/// Whoever leads a flight here hands the lead to the request itself, which
/// `request` makes, and follows like everybody else: its future may be dropped, or
/// never polled again.
pub(super) async fn read_shared<I, T, D>(
    io: &I,
    flights: &Arc<Flights<T>>,
    number: u32,
    is_there: impl Fn() -> bool,
    request: impl Fn(Lead<T>) -> DetachedRead<D>,
) -> Result<Option<T>>
where
    I: Io,
    T: Clone,
    D: FnOnce(IoBuf, Result<usize>) + Send + 'static,
{
    let mut has_failed = false;
    loop {
        let landed = match flights.follow(number) {
            Some(follow) => follow.await,
            None => {
                let mut joined = None;
                let begin = || match flights.join(number) {
                    Join::Follow(follow) => {
                        joined = Some(follow);
                        None
                    }
                    // A flight that has just landed put it in before.
                    Join::Lead(_) if is_there() => None,
                    Join::Lead(lead) => {
                        joined = Some(lead.follow());
                        Some(request(lead))
                    }
                };
                io.read_detached(begin).await?;
                match joined {
                    Some(follow) => follow.await,
                    None => return Ok(None),
                }
            }
        };
        match landed {
            Some(Err(error)) if error.kind() == ErrorKind::Io && !has_failed => {
                has_failed = true;
            }
            Some(read) => return read.map(Some),
            // Whoever read it is gone.
            None => {}
        }
    }
}
