//! What threads that wait do, as futures for tasks of the simulated machine.
//!
//! On a simulated machine a call that waits steps the machine, so only one can be
//! under way. Here are the same calls as futures: they do their I/O themselves and
//! lead groups of the log, as threads do, and any number of them run side by side.

use std::future::Future;

use crate::base::error::{Error, Result};
use crate::base::latency::Operation;
use crate::base::seq::Kind;
use crate::db::backend::Backend;
use crate::db::delete_range::delete_range;
use crate::db::open::Inner;
use crate::db::operations::value_of;
use crate::db::scan::take_row;
use crate::db::{Delete, DeleteRange, Get, Put, ScanIter, Value, Write};
use crate::io::sim::Sim;
use crate::wal::Role;

impl Inner {
    fn sim(&self) -> Result<&Sim> {
        match &self.backend {
            Backend::Sim(sim) => Ok(sim),
            Backend::Os(_) => Err(Error::invalid(
                "only a database on a simulated machine has tasks to wait in: use .await, or .wait()",
            )),
        }
    }
}

impl<'a> Put<'a> {
    /// What [`Put::wait`] does, in a task of the simulated machine.
    ///
    /// ```
    /// # use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// # let sim = Sim::new(1);
    /// # let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// for i in 0..3u8 {
    ///     let db = db.clone();
    ///     sim.spawn(async move { db.put(&[i], b"value").wait_in_task().await.unwrap() });
    /// }
    /// sim.run_for(1_000_000_000);
    /// assert_eq!(db.scan(..).iter().count(), 3);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Put::wait`]; `InvalidArgument` elsewhere than on a simulated machine.
    /// So with the others.
    pub fn wait_in_task(self) -> impl Future<Output = Result<()>> + Send + use<'a> {
        let Self { db, key, value, durability } = self;
        async move {
            let inner = &*db.inner;
            inner.engine.check_sizes(key, value)?;
            let op = db.op(Kind::Put, key, value);
            let (sim, role) = (inner.sim()?, Role::Leader);
            inner.engine.write(Operation::Put, sim, role, &[op], durability).await
        }
    }
}

impl<'a> Delete<'a> {
    /// What [`Delete::wait`] does, in a task of the simulated machine; see
    /// [`Put::wait_in_task`].
    ///
    /// # Errors
    /// Those of [`Put::wait_in_task`].
    ///
    /// ```
    /// # use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// # let sim = Sim::new(1);
    /// # let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// sim.block_on(db.delete(b"key").wait_in_task())?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn wait_in_task(self) -> impl Future<Output = Result<()>> + Send + use<'a> {
        let Self { db, key, durability } = self;
        async move {
            let inner = &*db.inner;
            inner.engine.check_sizes(key, b"")?;
            let op = db.op(Kind::Delete, key, b"");
            let (sim, role) = (inner.sim()?, Role::Leader);
            inner.engine.write(Operation::Put, sim, role, &[op], durability).await
        }
    }
}

impl<'a> Write<'a> {
    /// What [`Write::wait`] does, in a task of the simulated machine; see
    /// [`Put::wait_in_task`].
    ///
    /// # Errors
    /// Those of [`Write::wait`] and [`Put::wait_in_task`].
    ///
    /// ```
    /// # use ourodb::{Batch, Db, IoBackend, Options, sim::Sim};
    /// # let sim = Sim::new(1);
    /// # let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// let mut batch = Batch::new();
    /// batch.put(b"key", b"value");
    /// sim.block_on(db.write(batch).wait_in_task())?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn wait_in_task(self) -> impl Future<Output = Result<()>> + Send + use<'a> {
        let Self { db, batch, durability } = self;
        async move {
            let ops = db.batch_ops(&batch)?;
            let inner = &*db.inner;
            let (sim, role) = (inner.sim()?, Role::Leader);
            inner.engine.write(Operation::Batch, sim, role, &ops, durability).await
        }
    }
}

impl<'a> DeleteRange<'a> {
    /// What [`DeleteRange::wait`] does, in a task of the simulated machine; see
    /// [`Put::wait_in_task`].
    ///
    /// # Errors
    /// Those of [`DeleteRange::wait`] and [`Put::wait_in_task`].
    ///
    /// ```
    /// # use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// # let sim = Sim::new(1);
    /// # let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// sim.block_on(db.delete_range(b"a"..b"c").wait_in_task())?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn wait_in_task(self) -> impl Future<Output = Result<()>> + Send + use<'a> {
        let Self { db, range, durability } = self;
        async move {
            let sim = db.inner.sim()?;
            delete_range(db, |_| sim, Role::Leader, &range, durability).await
        }
    }
}

impl<'a> Get<'a> {
    /// What [`Get::wait`] does, in a task of the simulated machine; see
    /// [`Put::wait_in_task`].
    ///
    /// # Errors
    /// Those of [`Get::wait`] and [`Put::wait_in_task`].
    ///
    /// ```
    /// # use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// # let sim = Sim::new(1);
    /// # let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// assert!(sim.block_on(db.get(b"key").wait_in_task())?.is_none());
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn wait_in_task(self) -> impl Future<Output = Result<Option<Value>>> + Send + use<'a> {
        let Self { db, key } = self;
        async move {
            let inner = &*db.inner;
            inner.engine.get(inner.sim()?, key, value_of).await
        }
    }
}

impl ScanIter {
    /// What the iterator's `next` does, in a task of the simulated machine; see
    /// [`Put::wait_in_task`].
    ///
    /// ```
    /// # use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// # let sim = Sim::new(1);
    /// # let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// let mut rows = db.scan(..).iter();
    /// assert!(sim.block_on(rows.next_in_task()).is_none());
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub async fn next_in_task(&mut self) -> Option<Result<(Value, Value)>> {
        let sim = match self.db.inner.sim() {
            Ok(sim) => sim.clone(),
            Err(error) => return Some(Err(error)),
        };
        self.left = self.left.checked_sub(1)?;
        let moved = self.scanner.next(&[sim]).await;
        self.moved(moved, take_row)
    }
}
