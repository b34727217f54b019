//! A chart: a bar per peer, with a line from the lowest to the highest round.

use crate::compare::html::escape;
use crate::compare::metrics::Metric;
use crate::compare::results::Figure;
use crate::compare::table::DISTURBED;

const WIDTH: f64 = 720.0;
const LABELS: f64 = 120.0;
const VALUES: f64 = 110.0;
const ROW: f64 = 26.0;
const TOP: f64 = 8.0;

/// The chart of one figure, named `id`. Peers without a figure are said to have none.
pub fn chart(id: &str, metric: &Metric, bars: &[(String, Option<Figure>)]) -> String {
    let highest = bars.iter().filter_map(|(_, figure)| Some(figure.as_ref()?.high));
    let scale = (WIDTH - LABELS - VALUES) / highest.fold(f64::MIN_POSITIVE, f64::max);
    let height = TOP * 2.0 + ROW * bars.len() as f64;
    let mut svg = format!(
        "<svg id=\"{id}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n",
        escape(metric.label)
    );
    for (index, (name, figure)) in bars.iter().enumerate() {
        let y = TOP + ROW * index as f64;
        let middle = y + ROW / 2.0;
        svg.push_str(&format!(
            "<text class=\"name\" x=\"{}\" y=\"{}\">{}</text>\n",
            LABELS - 8.0,
            middle + 4.0,
            escape(name)
        ));
        let text_at = |x: f64, text: &str| {
            format!("<text x=\"{x:.1}\" y=\"{:.1}\">{}</text>\n", middle + 4.0, escape(text))
        };
        let Some(figure) = figure else {
            svg.push_str(&text_at(LABELS + 4.0, "–"));
            continue;
        };
        let x = |value: f64| LABELS + value.max(0.0) * scale;
        let class = if index == 0 { "bar own" } else { "bar" };
        svg.push_str(&format!(
            "<rect class=\"{class}\" x=\"{LABELS}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>\n",
            y + 4.0,
            x(figure.median) - LABELS,
            ROW - 8.0
        ));
        if figure.rounds > 1 {
            svg.push_str(&format!(
                "<path class=\"spread\" d=\"M{:.1} {middle}H{:.1}\"/>\n",
                x(figure.low),
                x(figure.high)
            ));
        }
        let mark = if figure.disturbed { DISTURBED } else { "" };
        let value = metric.text(figure.median) + mark;
        svg.push_str(&text_at(x(figure.high) + 6.0, &value));
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::metrics::Unit;

    #[test]
    fn bars_are_in_proportion_and_names_cannot_break_the_page() {
        let metric = Metric { key: "x", label: "x", unit: Unit::Plain, chart: true };
        let figure =
            |median, high| Some(Figure { median, low: median, high, rounds: 2, disturbed: false });
        let bars = [
            ("a".to_owned(), figure(10.0, 20.0)),
            ("<b>".to_owned(), figure(5.0, 5.0)),
            ("c".to_owned(), None),
        ];
        let svg = chart("chart-x", &metric, &bars);
        let full = WIDTH - LABELS - VALUES;
        assert!(svg.contains(&format!("width=\"{:.1}\"", full / 2.0)), "{svg}");
        assert!(svg.contains(&format!("width=\"{:.1}\"", full / 4.0)), "{svg}");
        assert!(svg.contains("&lt;b&gt;") && !svg.contains("<b>"), "{svg}");
        assert!(!svg.contains("NaN") && svg.contains(">–<"), "{svg}");
    }
}
