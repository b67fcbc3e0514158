//! Telling what is in one file of a database.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::Path;

use crate::base::dumped::{DumpDetail, Dumped};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::fault::Finding;
use crate::base::limits::{UNIT, UNIT_U64};
use crate::db::backend::wait_on;
use crate::db::open::{check_may_wait, check_path};
use crate::db::options::Options;
use crate::db::verify::backend;
use crate::format::header::{FileType, Header};
use crate::io::{Dump, Halt, Inspection, Io, Listener, OpenMode};
use crate::manifest::{dump_identity, dump_manifest};
use crate::sst::dump_table;
use crate::value::dump_values;
use crate::wal::{dump_map, dump_segment};

/// Tells what is in one file of a database: a table, a segment or a mapping of
/// the log, a value file, a manifest, or the identity.
///
/// The file's header says what it is, or else its name. Checksums of all that is
/// told are verified, and those of a table's filters and indexes; what a table's
/// blocks hold is only with [`DumpDetail::Blocks`], and what a value file holds
/// never, since its checksums are elsewhere: [`verify`](crate::verify()) does all
/// of that. It needs no database
/// around it, nothing is locked, and nothing is written; what it tells of a file
/// that is being written to may be half of it. `visit` gets one part after the
/// other, damage where it is, and ends the dump by `ControlFlow::Break`. Of
/// `options` only [`Options::io`] counts.
///
/// # Errors
/// `InvalidArgument` when the file is none of the engine's, or a directory; what keeps it from
/// being read.
///
/// ```
/// use ourodb::{Db, DumpDetail, Dumped, Options};
/// use std::ops::ControlFlow;
/// # let dir = tempfile::tempdir().unwrap();
/// Db::open(dir.path(), Options::default().shards(4))?.close()?;
/// let file = dir.path().join("IDENTITY");
/// let mut lines = Vec::new();
/// ourodb::dump(file, &Options::default(), DumpDetail::Summary, |part| {
///     if let Dumped::Text { text, .. } = part {
///         lines.push(text.to_owned());
///     }
///     ControlFlow::Continue(())
/// })?;
/// assert!(lines.iter().any(|line| line.contains("4 shards")));
/// # Ok::<(), ourodb::Error>(())
/// ```
pub fn dump(
    file: impl AsRef<Path>,
    options: &Options,
    detail: DumpDetail,
    mut visit: impl FnMut(Dumped<'_>) -> ControlFlow<()>,
) -> Result<()> {
    check_may_wait()?;
    let backend = backend(options);
    // The dump and its inspection both tell, never at one time.
    let visit = RefCell::new(&mut visit);
    let listener = |part: Dumped<'_>| (visit.borrow_mut())(part);
    let path = file.as_ref();
    check_path(path)?;
    let halted = wait_on!(&backend, |io| dump_on(io, path, detail, &listener));
    match halted {
        Ok(()) | Err(Halt::Stopped) => Ok(()),
        Err(Halt::Failed(error)) => Err(error),
    }
}

async fn dump_on<I: Io>(
    io: &I,
    path: &Path,
    detail: DumpDetail,
    listener: &Listener<'_>,
) -> Result<(), Halt> {
    let file = io.open(path, OpenMode::Read).await.map_err(|error| match error.kind() {
        ErrorKind::Corruption => {
            let message = format!("{} is a directory; name one of the files in it", path.display());
            Error::invalid(message)
        }
        _ => error,
    })?;
    let len = io.len(&file).await?;
    let mut report = |finding: Finding<'_>| match finding {
        Finding::Fault(fault) => listener(Dumped::Damage(fault)),
        _ => ControlFlow::Continue(()),
    };
    let mut dump = Dump::new(Inspection::new(io, &mut report), detail, listener);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let by_name = FileType::of_name(name);
    // What is no file of the engine's by its name may end where it likes.
    let unit = match len {
        0 => None,
        _ if len < UNIT_U64 && by_name.is_none() => None,
        _ => dump.inspection.read(&file, 0, UNIT).await?,
    };
    let unit = unit.as_deref().unwrap_or_default();
    let Some(file_type) = FileType::of(unit).or(by_name) else {
        let message = format!("{} is no file of a database", path.display());
        return Err(Error::new(ErrorKind::InvalidArgument, message).into());
    };
    dump.text(0, &format!("{}, {len} bytes", file_type.name()))?;
    if file_type == FileType::Identity {
        return dump_identity(&mut dump, &file, len).await;
    }
    let header = Header::decode(unit, file_type).map_err(|error| error.at(path, 0));
    let header = dump.inspection.sound(header)?;
    if let Some(header) = &header {
        let (db, id, epoch) = (header.db, header.file, header.file.epoch());
        dump.text(1, &format!("file {id} of opening {epoch}, database {db:?}"))?;
    }
    // Those that grow may have been growing when the power failed.
    let grows = matches!(file_type, FileType::Manifest | FileType::Value);
    if !len.is_multiple_of(UNIT_U64) && !grows {
        let reason = format!("{len} bytes are not whole units of {UNIT}");
        dump.inspection.fault(path, len / UNIT_U64 * UNIT_U64, reason)?;
    }
    match (file_type, header) {
        (FileType::Table, _) => dump_table(&mut dump, &file, len).await,
        (FileType::Wal, Some(header)) => dump_segment(&mut dump, &file, len, &header).await,
        (FileType::Map, Some(header)) => dump_map(&mut dump, &file, len, &header).await,
        (FileType::Manifest, Some(header)) => dump_manifest(&mut dump, &file, len, &header).await,
        (FileType::Value, _) => dump_values(&dump, len),
        // Records are bound to what the header says.
        _ => dump.text(1, "without its header nothing else can be read"),
    }
}
