//! The two texts of a scrape: the one that every Prometheus and its like read, and OpenMetrics, for who asks for it.

use std::fmt::Write;

use axum::http::{HeaderMap, header};

/// What a client asks for that wants OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text";
/// What one asks for that would rather have the other.
const PLAIN: &str = "text/plain";

/// A format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, version 0.0.4.
    Classic,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What a client with these headers wants (`Accept`, RFC 9110 section 12.5.1).
    pub(crate) fn wanted(headers: &HeaderMap) -> Format {
        let accepted = headers.get_all(header::ACCEPT).iter();
        let ranges: Vec<&str> = accepted
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .collect();
        let weight = |media: &str| ranges.iter().map(|range| weight(range, media)).fold(0.0, f32::max);
        let open = weight(OPEN_METRICS);
        if open > 0.0 && open >= weight(PLAIN) {
            Format::OpenMetrics
        } else {
            Format::Classic
        }
    }

    /// The `Content-Type` of such a text.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// OpenMetrics text in this format.
    pub(crate) fn write(self, open_metrics: String) -> String {
        match self {
            Format::Classic => classic(&open_metrics),
            Format::OpenMetrics => open_metrics,
        }
    }
}

/// How much a part of an `Accept` wants a type; 0: not at all.
fn weight(range: &str, media: &str) -> f32 {
    let mut parts = range.split(';').map(str::trim);
    if !parts.next().is_some_and(|named| named.eq_ignore_ascii_case(media)) {
        return 0.0;
    }
    let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0))
}

/// There, counters are called with their `_total`, and nothing marks units and the end.
fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + open_metrics.len() / 64);
    let mut help = "";
    for line in open_metrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        match comment.split_once(' ') {
            Some(("HELP", about)) => help = about.split_once(' ').map_or("", |(_, help)| help),
            Some(("TYPE", about)) => describe(&mut text, about, help),
            _ => {}
        }
    }
    text
}

/// Writes the head of a family, of which OpenMetrics has `NAME TYPE`.
fn describe(text: &mut String, about: &str, help: &str) {
    let (name, kind) = about.split_once(' ').unwrap_or((about, "untyped"));
    let suffix = if kind == "counter" { "_total" } else { "" };
    let head = writeln!(text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}");
    head.expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_openmetrics_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            ("", Format::Classic),
            ("*/*", Format::Classic),
            ("text/plain", Format::Classic),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "text/html, Application/OpenMetrics-Text; version=1.0.0",
                Format::OpenMetrics,
            ),
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text;q=0", Format::Classic),
            ("application/openmetrics-text;q=much", Format::Classic),
            ("application/openmetrics-text;q=0.4, text/plain", Format::Classic),
            ("application/openmetrics-textual", Format::Classic),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(Format::wanted(&headers), format, "{accept}");
        }
        let mut two = HeaderMap::new();
        two.append(header::ACCEPT, "text/html".parse().unwrap());
        two.append(header::ACCEPT, OPEN_METRICS.parse().unwrap());
        assert_eq!(Format::wanted(&two), Format::OpenMetrics);
        assert_eq!(Format::wanted(&HeaderMap::new()), Format::Classic);
    }

    #[test]
    fn the_classic_text_differs_in_its_heads() {
        let open = "\
# HELP trivet_ops Operations answered.
# TYPE trivet_ops counter
trivet_ops_total{image=\"a # b\"} 2
# HELP trivet_age_seconds Age.
# TYPE trivet_age_seconds gauge
# UNIT trivet_age_seconds seconds
trivet_age_seconds 1.5
# HELP trivet_none Nothing.
# TYPE trivet_none gauge
# EOF
";
        let classic = "\
# HELP trivet_ops_total Operations answered.
# TYPE trivet_ops_total counter
trivet_ops_total{image=\"a # b\"} 2
# HELP trivet_age_seconds Age.
# TYPE trivet_age_seconds gauge
trivet_age_seconds 1.5
# HELP trivet_none Nothing.
# TYPE trivet_none gauge
";
        assert_eq!(Format::Classic.write(open.to_owned()), classic);
        assert_eq!(Format::OpenMetrics.write(open.to_owned()), open);
    }
}
