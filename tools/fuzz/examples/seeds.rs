//! Writes what the fuzzers start from, made by the engine's own encoders, into
//! the corpora beside this crate's sources.

use std::path::Path;
use std::{fs, io};

use ourodb::fuzz::TARGETS;

/// Rows as `ouro export` writes them.
const ROWS: [&[u8]; 4] = [
    b"\0key\\twith tab\tvalue\\x00\\\\",
    b"\0\xff\t",
    b"\x01{\"key\":\"k\\n\",\"value\":\"\\\"v\\\"\"}",
    b"\x01{\"key_b64\":\"/w==\",\"value_b64\":\"/gA=\"}",
];

fn write(target: &str, seeds: impl IntoIterator<Item = impl AsRef<[u8]>>) -> io::Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&dir)?;
    for (i, seed) in seeds.into_iter().enumerate() {
        fs::write(dir.join(format!("seed-{i:02}")), seed)?;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    for target in &TARGETS {
        // Not worth a corpus if the target does not take them.
        (target.seeds)().iter().for_each(|seed| (target.run)(seed));
        write(target.name, (target.seeds)())?;
    }
    write("import", ROWS)
}
