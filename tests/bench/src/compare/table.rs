//! The results as text.

use crate::compare::peers::{NAMES, Peer};
use crate::compare::results::Results;
use crate::compare::workloads::Workload;

/// Behind the name of a peer all of whose rounds had an objection.
pub const DISTURBED: &str = " !";

/// One workload: a line per peer, a column per figure.
pub fn workload(workload: &Workload, peers: &[Peer], results: &Results) -> String {
    let mut rows = vec![header(workload)];
    for peer in peers {
        if results.of(&workload.name, &peer.name).is_empty() {
            continue;
        }
        rows.push(row(workload, peer, results));
    }
    let marked = rows.iter().any(|row| row[0].ends_with(DISTURBED));
    let mut text = format!("\n{}\n{}", workload.title, align(&rows));
    if marked {
        text.push_str("  !: in every round other programs, or the generator, were in the way\n");
    }
    for peer in peers {
        if let Some(reason) = peer.cannot(&workload.job) {
            text.push_str(&format!("  {}: left out, {reason}\n", peer.name));
        }
    }
    text
}

/// The names of the columns. The first chart's figure is followed by its ratio and its spread.
pub fn header(workload: &Workload) -> Vec<String> {
    let mut cells = vec!["".to_owned()];
    for (index, metric) in workload.metrics.iter().enumerate() {
        cells.push(metric.label.to_owned());
        if index == 0 {
            cells.extend([format!("to {}", NAMES[0]), "lowest to highest".to_owned()]);
        }
    }
    cells
}

/// The cells of one peer.
pub fn row(workload: &Workload, peer: &Peer, results: &Results) -> Vec<String> {
    let first = workload.metrics.first().map(|metric| metric.key).unwrap_or_default();
    let disturbed = results.figure(&workload.name, &peer.name, first).is_some_and(|f| f.disturbed);
    let mut cells = vec![format!("{}{}", peer.name, if disturbed { DISTURBED } else { "" })];
    for (index, metric) in workload.metrics.iter().enumerate() {
        let figure = results.figure(&workload.name, &peer.name, metric.key);
        cells.push(metric.cell(figure));
        if index == 0 {
            let base = results.figure(&workload.name, NAMES[0], metric.key);
            let ratio = figure.zip(base).filter(|(_, base)| base.median != 0.0);
            let ratio = ratio.map(|(own, base)| format!("{:.2} x", own.median / base.median));
            cells.push(ratio.unwrap_or_else(|| "–".to_owned()));
            let spread = figure.map(|f| match f.rounds {
                1 => "one round".to_owned(),
                rounds => format!("{} – {} ({rounds})", metric.text(f.low), metric.text(f.high)),
            });
            cells.push(spread.unwrap_or_else(|| "–".to_owned()));
        }
    }
    cells
}

/// Columns as wide as their widest cell; the first to the left, the others to the right.
pub fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let gap = widths[column] - cell.chars().count();
            let gap = " ".repeat(gap);
            text.push_str("  ");
            match column {
                0 => text.push_str(&format!("{cell}{gap}")),
                _ => text.push_str(&format!("{gap}{cell}")),
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters_not_bytes() {
        let rows = [["", "µs", "n"], ["abc", "1", "10"]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|&cell| cell.to_owned()).collect()).collect();
        assert_eq!(align(&rows), "       µs   n\n  abc   1  10\n");
    }
}
