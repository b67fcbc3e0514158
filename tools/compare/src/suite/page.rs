//! The report as a page that a browser shows: a table whose cells have bars. One file, which
//! asks for nothing from anywhere.

use std::fmt::Write;

use super::contestant::Contestant;
use super::plan::Row;
use super::report::{Judged, Results, Verdict, cell, set_up, shown};

const STYLE: &str = include_str!("page.css");

/// The page.
#[must_use]
pub fn render(results: &Results) -> String {
    let mut rows = String::new();
    let mut counts = [0; 4];
    for (row, judged) in results.judged() {
        counts[judged.verdict as usize] += 1;
        rows += &of_row(results, row, &judged);
    }
    let failed = results.failed().map(|(step, contestant, why)| {
        format!("<li>{} · {}: {}</li>", escaped(step), contestant.title(), escaped(why))
    });
    let failed: String = failed.collect();
    let failed = match failed.is_empty() {
        true => String::new(),
        false => format!("<h2>What failed</h2>\n<ul>{failed}</ul>\n"),
    };
    let doubtful = results.doubtful().map(|(step, contestant, what)| {
        format!("<li>{} · {}: {what}</li>", escaped(step), contestant.title())
    });
    let doubtful: String = doubtful.collect();
    let failed = match doubtful.is_empty() {
        true => failed,
        false => {
            format!("{failed}<h2>What may be otherwise in longer runs</h2>\n<ul>{doubtful}</ul>\n")
        }
    };
    let [met, cannot_tell, missed, _] = counts;
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>OuroDB and its peers</title>\n<style>\n{STYLE}</style>\n\
         <h1>OuroDB and its peers</h1>\n<p>{}</p>\n\
         <p><b>{met}</b> goals met, <b>{missed}</b> missed, of <b>{cannot_tell}</b> the rounds do not \
         agree. Longer bars are more; of times, shorter ones are better. Goals are set by LSM \
         trees and by the disk; B-trees are shown beside them. In brackets: the extremes of the \
         rounds.</p>\n{rows}{failed}</html>\n",
        escaped(&set_up(results))
    )
}

fn of_row(results: &Results, row: &Row, judged: &Judged) -> String {
    let cells: Vec<(Contestant, f64)> = results
        .settings
        .contestants
        .iter()
        .filter_map(|contestant| Some((*contestant, cell(results, row, *contestant)?)))
        .collect();
    let most = cells.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let mut bars = String::new();
    for (contestant, value) in cells {
        let percent = (value / most * 100.0).clamp(0.5, 100.0);
        let class = match contestant {
            Contestant::OuroDb => " class=\"ours\"",
            Contestant::Fio => " class=\"disk\"",
            _ => "",
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            bars,
            "<dt{class}>{}</dt><dd{class}><i style=\"width:{percent:.1}%\"></i><span>{}</span></dd>",
            contestant.title(),
            shown(row.figure, value)
        );
    }
    let class = match judged.verdict {
        Verdict::Met => "met",
        Verdict::CannotTell => "unsure",
        Verdict::Missed => "missed",
        Verdict::NoGoal => return section(row, &bars, ""),
    };
    let judged = format!(
        "<p><b class=\"{class}\">{}</b> wanted {}; reached {}</p>\n",
        judged.verdict.name(),
        escaped(&judged.goal()),
        escaped(&judged.outcome()),
    );
    section(row, &bars, &judged)
}

fn section(row: &Row, bars: &str, judged: &str) -> String {
    let title = escaped(row.title);
    format!("<section>\n<h2>{title}</h2>\n<dl>\n{bars}</dl>\n{judged}</section>\n")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::results;
    use super::*;

    #[test]
    fn a_page_needs_nothing_else() {
        let ours = ("load 1", Contestant::OuroDb, 1, 500.0);
        let fjall = ("load 1", Contestant::Fjall, 1, 100.0);
        let page = render(&results(&[ours, fjall, ("load 1", Contestant::RocksDb, 1, 50.0)]));
        for part in ["src=", "href=", "@import", "url(", "http", "<processor>"] {
            assert!(!page.contains(part), "{part}");
        }
        assert!(page.contains("a &lt;processor&gt;"));
        assert!(page.contains("<dd class=\"ours\"><i style=\"width:100.0%\"></i><span>500/s"));
        assert!(page.contains("<dt>fjall</dt><dd><i style=\"width:20.0%\">"));
        assert!(
            page.contains("<b class=\"met\">met</b> wanted ≥ 2x the best LSM tree; reached 5.00x")
        );
        // Its CPU time is a goal of its own, and missed.
        assert!(page.contains("<b>1</b> goals met, <b>1</b> missed"));
    }
}
