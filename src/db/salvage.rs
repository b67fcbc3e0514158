//! Copying what is sound of a damaged database into a new one.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::Path;

use crate::base::durability::Durability;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::limits::VALUE_BYTES_MAX;
use crate::base::salvaged::{Salvaged, Salvaging};
use crate::base::seq::Kind;
use crate::db::backend::wait_on;
use crate::db::open::{check_may_wait, check_path};
use crate::db::options::Options;
use crate::db::verify::{backend, lock_to_read, place_of, unlock};
use crate::db::{Batch, Db};
use crate::io::{Halt, Io};
use crate::shard::{
    Damaged, Reporter, SharedReporter, Sink, identify, log_bytes, salvage as copy_rows,
};

/// A batch is written at this size.
const BATCH_BYTES: usize = 1 << 20;

/// A window of the log takes at most this part of the memory budget.
const WINDOW_SHARE: u64 = 4;

/// Copies what is sound of the damaged database in `dir` into a new one in `into`,
/// and reports what is lost. `dir` is not written to.
///
/// Of each key the newest version that can be read is copied, whatever file it is
/// in, unless something newer deletes it. Nothing that does not match its checksum
/// is copied. Where a newer version, or what deleted it, was lost, an older one
/// comes back: the keys for which that may be so are those of the losses that are
/// reported. In detail:
///
/// * A damaged block of a table loses its keys, those between its neighbours'.
///   Indexes and filters are not needed. With both the manifest of its shard and its
///   own last unit, a table is lost as a whole.
/// * A damaged manifest of a shard does not tell which tables count: all that are
///   there are read, also such as were merged into others and wait to be removed, and
///   the newest version wins. What compaction had forgotten, because it was deleted,
///   may come back.
/// * Log records behind missing ones are copied. Where the log was never durable, its
///   end is where an opening would find it.
/// * A damaged root manifest does not tell which log counts: all that is there does.
/// * Identity files are not needed: every file tells which database it is of.
///
/// What `report` is told is a [`Salvaging`]; it is asked often, and ends the salvage by
/// `ControlFlow::Break`. Until this has returned, with [`Salvaged::is_complete`], what
/// is in `into` is a part, although it can be opened; then it is durable and closed.
///
/// The new database is opened with `options`, and has as many shards as the damaged
/// one if they do not say ([`Options::shards`]); it takes values of any length. The
/// damaged database's lock is taken as [`verify`](crate::verify()) does. Memory is the
/// new database's, a quarter of its budget, one log segment, what manifests and range
/// tombstones take, 256 KiB for each table that the merge is in, and the longest value.
///
/// # Errors
/// `Locked` when somebody has the damaged database open; `NotFound` when there is none;
/// `InvalidArgument` when there is something in `into`; `Corruption` when no file tells
/// the database's id, without which nothing can be judged; `Unsupported` for what only a
/// newer version of the engine can read; what keeps this process from reading a file;
/// and what opening and writing the new database may fail with, such as `NoSpace`.
///
/// ```
/// use ourodb::{Db, Options, Salvaging};
/// use std::ops::ControlFlow;
/// # let dir = tempfile::tempdir().unwrap();
/// # let (old, new) = (dir.path().join("old"), dir.path().join("new"));
/// let db = Db::open(&old, Options::default())?;
/// db.put(b"key", b"value").wait()?;
/// db.close()?;
/// std::fs::remove_file(old.join("IDENTITY")).unwrap();
/// let salvaged = ourodb::salvage(&old, &new, &Options::default(), |event| {
///     if let Salvaging::Lost(loss) = event {
///         println!("{loss}");
///     }
///     ControlFlow::Continue(())
/// })?;
/// assert!(salvaged.is_complete);
/// assert_eq!((salvaged.rows, salvaged.losses), (1, 0));
/// assert_eq!(Db::open(&new, Options::default())?.get(b"key").wait()?.as_deref(), Some(&b"value"[..]));
/// # Ok::<(), ourodb::Error>(())
/// ```
pub fn salvage(
    dir: impl AsRef<Path>,
    into: impl AsRef<Path>,
    options: &Options,
    mut report: impl FnMut(Salvaging<'_>) -> ControlFlow<()>,
) -> Result<Salvaged> {
    check_may_wait()?;
    let (dir, into) = (dir.as_ref(), into.as_ref());
    check_path(dir)?;
    check_path(into)?;
    // However they are written; links, and ways up, are whoever wrote them's affair.
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if absolute(into).starts_with(absolute(dir)) {
        let (dir, into) = (dir.display(), into.display());
        let message = format!("{into} is in {dir}, which is not to be written to");
        return Err(Error::invalid(message));
    }
    let backend = backend(options);
    wait_on!(&backend, |io| check_vacant(io, into))?;
    let lock = wait_on!(&backend, |io| lock_to_read(io, dir, options))?;
    let place = wait_on!(&backend, |io| async { place_of(io, lock.as_ref()) })?;
    let reporter = RefCell::new(Reporter::new(&mut report));
    let copied = wait_on!(&backend, |io| identify(io, dir, place, &reporter));
    let copied = copied.and_then(|damaged| {
        let db = Db::open(into, options_for(&damaged, options))?;
        let mut sink = Rows { db: &db, batches: Vec::new() };
        let window = usize::try_from(options.memory_bytes() / WINDOW_SHARE).unwrap_or(usize::MAX);
        let copied = wait_on!(&backend, |io| copy_all(io, &damaged, window, &reporter, &mut sink));
        let kept = copied.and_then(|()| Ok(db.flush().wait()?));
        let closed = db.close();
        kept.and_then(|()| Ok(closed?))
    });
    let mut reporter = reporter.into_inner();
    let failure = match copied {
        Ok(()) => {
            reporter.counts.is_complete = true;
            None
        }
        Err(halt) => reporter.failure(halt),
    };
    let counts = reporter.counts;
    wait_on!(&backend, |io| unlock(io, dir, lock, "salvaged"))?;
    failure.map_or(Ok(counts), Err)
}

async fn copy_all<I: Io>(
    io: &I,
    damaged: &Damaged,
    window_bytes: usize,
    reporter: &SharedReporter<'_>,
    sink: &mut Rows<'_>,
) -> Result<(), Halt> {
    copy_rows(io, damaged, window_bytes, reporter, sink).await?;
    Ok(sink.write_all().await?)
}

/// With what the new database is opened.
fn options_for(damaged: &Damaged, options: &Options) -> Options {
    let options = options.clone().shards_unless_given(damaged.shards);
    options.create(true).value_bytes_max(VALUE_BYTES_MAX)
}

/// Refuses a directory that something is in.
async fn check_vacant<I: Io>(io: &I, dir: &Path) -> Result<()> {
    match io.list(dir).await {
        Ok(names) if names.is_empty() => Ok(()),
        Ok(_) => {
            let dir = dir.display();
            let message = format!("{dir} is not empty; name a directory that is not there yet");
            Err(Error::invalid(message))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Puts rows into the new database, many at a time.
struct Rows<'a> {
    db: &'a Db,
    /// By WAL stream, with the bytes of each.
    batches: Vec<(Batch, usize)>,
}

impl Rows<'_> {
    async fn write(&mut self, stream: usize) -> Result<()> {
        let (batch, _) = std::mem::take(&mut self.batches[stream]);
        // The flush at the end makes all of them durable.
        self.db.write(batch).durability(Durability::ProcessSafe).await
    }

    async fn write_all(&mut self) -> Result<()> {
        for stream in 0..self.batches.len() {
            self.write(stream).await?;
        }
        Ok(())
    }
}

impl Sink for Rows<'_> {
    async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let stream = self.db.stream_of(key);
        if self.batches.len() <= stream {
            self.batches.resize_with(stream + 1, Default::default);
        }
        let bytes = key.len() + value.len();
        let (batch, held) = &self.batches[stream];
        let is_full = held + bytes > BATCH_BYTES
            || batch.bytes() + log_bytes(Kind::Put, key, value) > self.db.batch_bytes_max();
        if is_full && !batch.is_empty() {
            self.write(stream).await?;
        }
        let (batch, held) = &mut self.batches[stream];
        batch.put(key, value);
        *held += bytes;
        Ok(())
    }
}
