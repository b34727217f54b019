//! All rounds' figures, and what is said of them: the median and how far they lie apart.

use serde_json::{Map, Value};

use crate::compare::metrics::{Metric, Unit};
use crate::report::{duration, median};

/// One round.
pub struct Record {
    /// Which workload.
    pub workload: String,
    /// Who.
    pub peer: String,
    /// The run's figures.
    pub json: Map<String, Value>,
}

impl Record {
    fn valid(&self) -> bool {
        self.json.get("valid").and_then(Value::as_bool).unwrap_or(false)
    }
}

/// All rounds so far.
#[derive(Default)]
pub struct Results(pub Vec<Record>);

/// A figure over several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub low: f64,
    /// The greatest.
    pub high: f64,
    /// How many rounds.
    pub rounds: usize,
    /// Whether no round was without an objection, and these are all there are.
    pub disturbed: bool,
}

impl Results {
    /// The rounds of one peer in one workload.
    pub fn of(&self, workload: &str, peer: &str) -> Vec<&Record> {
        let wanted = |r: &&Record| r.workload == workload && r.peer == peer;
        self.0.iter().filter(wanted).collect()
    }

    /// A figure from the rounds that were not disturbed; from all, marked, if none was.
    pub fn figure(&self, workload: &str, peer: &str, key: &str) -> Option<Figure> {
        let records = self.of(workload, peer);
        let valid: Vec<&Record> = records.iter().copied().filter(|r| r.valid()).collect();
        let disturbed = valid.is_empty();
        let used = if disturbed { records } else { valid };
        let value = |record: &Record| record.json.get(key).and_then(Value::as_f64);
        let values: Vec<f64> = used.into_iter().filter_map(value).collect();
        let low = values.iter().copied().reduce(f64::min)?;
        let high = values.iter().copied().reduce(f64::max)?;
        Some(Figure { median: median(&values), low, high, rounds: values.len(), disturbed })
    }

    /// Rounds with objections, and the objections.
    pub fn objections(&self, workload: &str, peer: &str) -> Vec<String> {
        let list = |record: &Record| match record.json.get("objections") {
            Some(Value::Array(list)) => {
                list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        self.of(workload, peer).into_iter().flat_map(list).collect()
    }
}

impl Metric {
    /// A value as people read it.
    pub fn text(&self, value: f64) -> String {
        match self.unit {
            Unit::Duration => duration(value),
            Unit::Micros => format!("{} µs", plain(value)),
            Unit::Millis => format!("{} ms", plain(value)),
            Unit::Kib => format!("{} KiB", plain(value)),
            Unit::Plain => plain(value),
        }
    }

    /// A figure for a table cell.
    pub fn cell(&self, figure: Option<Figure>) -> String {
        match figure {
            Some(figure) => self.text(figure.median),
            None => "–".to_owned(),
        }
    }
}

/// Three digits that count.
pub fn plain(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: f64, valid: bool) -> Record {
        let mut json = Map::new();
        json.insert("x".to_owned(), value.into());
        json.insert("valid".to_owned(), valid.into());
        json.insert("objections".to_owned(), vec![Value::from("crowded")].into());
        Record { workload: "w".to_owned(), peer: "p".to_owned(), json }
    }

    #[test]
    fn disturbed_rounds_count_only_if_there_are_no_others() {
        let mut results = Results(vec![record(100.0, false)]);
        let figure = results.figure("w", "p", "x").expect("one");
        assert_eq!((figure.median, figure.disturbed), (100.0, true));
        results.0.extend([record(3.0, true), record(1.0, true), record(2.0, true)]);
        let figure = results.figure("w", "p", "x").expect("three");
        let expected = Figure { median: 2.0, low: 1.0, high: 3.0, rounds: 3, disturbed: false };
        assert_eq!(figure, expected);
        assert_eq!(results.figure("w", "p", "y"), None);
        assert_eq!(results.figure("w", "q", "x"), None);
        assert_eq!(results.objections("w", "p").len(), 4);
    }

    #[test]
    fn three_digits_that_count() {
        assert_eq!(
            [plain(0.0), plain(0.0123), plain(9.876), plain(12.34), plain(1234.5)],
            ["0", "0.012", "9.88", "12.3", "1234"]
        );
    }
}
