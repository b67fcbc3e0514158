//! How far a run of many is.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for so many of these; it is drawn where a terminal is.
pub(crate) fn bar(count: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(count);
    let style = format!("{{pos}} of {{len}} {what} [{{bar:30}}] {{per_sec}}, {{eta}} left {{msg}}");
    if let Ok(style) = ProgressStyle::with_template(&style) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
