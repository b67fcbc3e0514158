//! A result as a page that a browser shows: charts, the table, the set-up. One file, which
//! asks for nothing from anywhere.
//!
//! What a chart shows is worked out here as far as it takes histograms; `page/script.js` draws.

use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::hlog;
use crate::report::Report;
use crate::timeline::{Interval, coarsened};
use crate::workload::OpKind;

/// Columns of charts over time: more cannot be told apart.
const STEPS_MAX: usize = 400;
/// Rows of the heat map for latencies that differ by ten times.
const CELLS_PER_DECADE: u32 = 20;

/// What was done, in a line.
#[must_use]
pub fn title(report: &Report) -> String {
    match &report.config.workload {
        Some(workload) => {
            format!("run {workload}: {}", report.config.description.as_deref().unwrap_or_default())
        }
        None => format!("load of {} records", crate::table::grouped(report.config.records)),
    }
}

/// The page.
pub fn render(report: &Report) -> Result<String, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::Other(format!("cannot write the result as a page: {error}"))
    };
    let steps = coarsened(&report.result.intervals, STEPS_MAX).map_err(|error| fail(&error))?;
    let search = report.result.find_max.as_ref();
    let data = Page {
        title: title(report),
        search: search.map(|found| found.words(report.config.rate_ops_per_s)),
        heat_cells_per_decade: CELLS_PER_DECADE,
        report,
        steps: steps.iter().map(step).collect::<Result<_, _>>().map_err(|error| fail(&error))?,
    };
    let mut data = serde_json::to_value(data).map_err(|error| fail(&error))?;
    // They are in the steps.
    data["result"]["intervals"] = Value::Null;
    // Within a script, nothing may look like its end.
    let data = data.to_string().replace('<', "\\u003c");
    let name = format!("OuroDB: {}", title(report));
    Ok(include_str!("page/report.html")
        .replace("<!--title-->", &escaped(&name))
        .replace("/*style*/", include_str!("page/style.css"))
        .replace("/*script*/", include_str!("page/script.js"))
        .replace("<!--data-->", &data))
}

/// What the script draws.
#[derive(Serialize)]
struct Page<'a> {
    title: String,
    /// What a search came to, in words.
    search: Option<String>,
    heat_cells_per_decade: u32,
    #[serde(flatten)]
    report: &'a Report,
    steps: Vec<Value>,
}

/// A column of the charts: an interval, and of each kind of operation how many had which
/// latency.
fn step(interval: &Interval) -> Result<Value, String> {
    let mut value = serde_json::to_value(interval).map_err(|error| error.to_string())?;
    for (kind, of) in &interval.operations {
        let histogram = hlog::decode(&of.histogram)?;
        let mut cells: Vec<(u32, u64)> = Vec::new();
        for at in histogram.iter_recorded() {
            let cell = cell(at.value_iterated_to());
            match cells.last_mut() {
                Some((last, count)) if *last == cell => *count += at.count_at_value(),
                _ => cells.push((cell, at.count_at_value())),
            }
        }
        let of = &mut value["operations"][OpKind::name(*kind)];
        of["histogram"] = Value::Null;
        of["cells"] = serde_json::to_value(cells).map_err(|error| error.to_string())?;
    }
    Ok(value)
}

/// The row of the heat map.
fn cell(ns: u64) -> u32 {
    // Not negative: at least a nanosecond.
    (f64::log10(ns.max(1) as f64) * f64::from(CELLS_PER_DECADE)) as u32
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find_max::Found;
    use crate::table::tests::large;
    use crate::timeline::tests::intervals;
    use crate::workload::BuiltIn;

    /// What the script is given.
    fn data(page: &str) -> Value {
        let begin = page.find("id=\"data\">").unwrap() + "id=\"data\">".len();
        let len = page[begin..].find("</script>").unwrap();
        serde_json::from_str(&page[begin..begin + len]).unwrap()
    }

    #[test]
    fn a_page_needs_nothing_else_and_has_all_of_the_result() {
        let mut report = large("run", Some(BuiltIn::A));
        report.config.dir = "</script><!-- & <b>".to_owned();
        report.result.intervals = intervals(3);
        let page = render(&report).unwrap();
        for part in ["src=", "href=", "@import", "url(", "<!--data-->", "/*script*/"] {
            assert!(!page.contains(part), "{part}");
        }
        let links = page.matches("http").count();
        assert_eq!(links, page.matches("http://www.w3.org/2000/svg").count());
        let data = data(&page);
        assert_eq!(data["config"]["dir"], "</script><!-- & <b>");
        assert_eq!(data["result"]["ops"], report.result.ops);
        let step = &data["steps"][1]["operations"]["read"];
        assert_eq!(step["ops"], 2);
        // 1 us and 20 us.
        assert_eq!(step["cells"], serde_json::json!([[60, 1], [86, 1]]));
        assert!(step["histogram"].is_null());
    }

    #[test]
    fn a_search_that_ended_early_is_not_said_to_have_found_something() {
        let mut report = large("run", Some(BuiltIn::A));
        assert!(data(&render(&report).unwrap())["search"].is_null());
        let promise = "p99<2ms".parse().unwrap();
        let found = Found::early(&promise, (7000, 1), Vec::new());
        let words = found.words(report.config.rate_ops_per_s);
        report.result.find_max = Some(found);
        let data = data(&render(&report).unwrap());
        assert!(words.contains("ended early"), "{words}");
        assert_eq!(data["search"], words);
    }

    #[test]
    fn a_day_has_as_many_columns_as_a_screen() {
        let mut report = large("run", Some(BuiltIn::A));
        report.result.intervals = intervals(86_400);
        let data = data(&render(&report).unwrap());
        let steps = data["steps"].as_array().unwrap();
        assert!((STEPS_MAX / 2..=STEPS_MAX).contains(&steps.len()));
        let count = |step: &Value| step["operations"]["read"]["cells"][0][1].as_u64().unwrap();
        assert_eq!(steps.iter().map(count).sum::<u64>(), 86_400);
        let seconds = |step: &Value| step["seconds"].as_f64().unwrap();
        assert_eq!(steps.iter().map(seconds).sum::<f64>(), 86_400.0);
    }
}
