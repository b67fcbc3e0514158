//! Compressed tables as users meet them: every compression that this build has
//! on every level, and what becomes of one that it has not.

mod common;

use std::ops::ControlFlow;

use common::{Model, Rng, assert_same, tiny};
use ourodb::sim::Sim;
use ourodb::{Compression, Db, ErrorKind, Options};

/// All that this build can do.
const BUILT: &[Compression] = &[
    Compression::None,
    Compression::Lz4,
    #[cfg(feature = "zstd")]
    Compression::Zstd,
];

fn options(sim: &Sim) -> Options {
    tiny(sim).shards(2).owners(1)
}

/// Puts so many values, of which a third is random, under as many keys.
fn write(db: &Db, model: &mut Model, rng: &mut Rng, keys: u64, count: u64) {
    for _ in 0..count {
        let key = format!("{:04}", rng.below(keys)).into_bytes();
        let mut value = rng.bytes(100);
        value.resize(300, b'.');
        db.put(&key, &value).wait().expect("a put");
        model.insert(key, value);
    }
}

#[test]
fn each_compression_round_trips_and_saves_space() {
    let mut sizes = Vec::new();
    for &compression in BUILT {
        let sim = Sim::new(1);
        let (mut model, mut rng) = (Model::new(), Rng(1));
        let open = || Db::open("/db", options(&sim).compression(compression)).expect("open");
        let db = open();
        assert!(db.options().compression.iter().all(|chosen| *chosen == compression));
        write(&db, &mut model, &mut rng, 500, 2000);
        db.compact(..).wait().expect("a compaction");
        assert_same(&db, &model);
        sizes.push(db.stats().table_bytes);
        db.close().expect("a close");
        drop(db);
        let faults = ourodb::verify("/db", &options(&sim), |_| ControlFlow::Continue(()));
        assert_eq!(faults.expect("verified").faults, 0);
        assert_same(&open(), &model);
    }
    // A third of each value is random.
    assert!(sizes[1] * 10 < sizes[0] * 6, "{sizes:?}");
    assert!(sizes.get(2).is_none_or(|zstd| zstd * 10 < sizes[0] * 6), "{sizes:?}");
}

/// A database takes whatever each opening says; tables that are there stay as
/// they are until they are merged.
#[test]
fn tables_of_every_compression_are_read_side_by_side() {
    let sim = Sim::new(2);
    let (mut model, mut rng) = (Model::new(), Rng(2));
    for _ in 0..2 {
        for &compression in BUILT {
            for level in [0, 1] {
                let options = options(&sim).compression_from(level, compression);
                let db = Db::open("/db", options).expect("open");
                write(&db, &mut model, &mut rng, 400, 300);
                db.flush().wait().expect("a flush");
                assert_same(&db, &model);
                db.close().expect("a close");
            }
        }
    }
}

/// Without the feature: options with zstd are refused before anything is made,
/// and so is a database with a table that has it, whole; both say what to do.
#[cfg(not(feature = "zstd"))]
#[test]
fn zstd_is_refused_by_name_where_it_is_not_built_in() {
    let refused = |sim: &Sim, options: Options| {
        let before = sim.paths();
        let error = Db::open("/db", options).expect_err("not in this build");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("cargo feature `zstd`"), "{error}");
        assert_eq!(sim.paths(), before);
        error
    };
    let sim = Sim::new(3);
    refused(&sim, options(&sim).compression(Compression::Zstd));
    refused(&sim, options(&sim).compression_from(6, Compression::Zstd));

    let (mut model, mut rng) = (Model::new(), Rng(3));
    let db = Db::open("/db", options(&sim)).expect("open");
    write(&db, &mut model, &mut rng, 100, 200);
    db.flush().wait().expect("a flush");
    db.close().expect("a close");
    drop(db);
    let is_table = |path: &&std::path::PathBuf| path.extension().is_some_and(|e| e == "sst");
    let paths = sim.paths();
    let path = paths.iter().find(is_table).expect("a table");
    let bytes = sim.file_bytes(path).expect("the table");
    let footer_at = bytes.len() - 4096;
    let mut footer = bytes[footer_at..].to_vec();
    // As FORMAT.md has it: the compression, and the checksum of the footer.
    footer[29] = 2;
    let seed = crc32c::crc32c(&footer[8..24]);
    let seed = crc32c::crc32c_append(seed, &(footer_at as u64).to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &footer[..4092]);
    footer[4092..].copy_from_slice(&crc.to_le_bytes());
    sim.overwrite(path, footer_at as u64, &footer);
    let error = refused(&sim, options(&sim));
    assert!(error.to_string().contains(path.to_str().expect("UTF-8")), "{error}");

    sim.overwrite(path, footer_at as u64, &bytes[footer_at..]);
    assert_same(&Db::open("/db", options(&sim)).expect("open"), &model);
}

#[test]
fn names_both_ways() {
    for (compression, name) in
        [(Compression::None, "none"), (Compression::Lz4, "lz4"), (Compression::Zstd, "zstd")]
    {
        assert_eq!(compression.to_string(), name);
        assert_eq!(name.parse::<Compression>().expect("a name"), compression);
    }
    for text in ["", "LZ4", "gzip"] {
        let error = text.parse::<Compression>().expect_err("no name");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("none, lz4, or zstd"), "{error}");
    }
}
