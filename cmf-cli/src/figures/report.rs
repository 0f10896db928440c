//! The report: one HTML file with pictures, numbers, settings and seeds, and nothing outside of it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Section, Table};

const STYLE: &str = "body{font-family:sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;line-height:1.45;\
color:#222}img{max-width:100%;border:1px solid #ddd}figure{margin:1.5em 0}figcaption,caption{color:#555;text-align:left;\
padding:.3em 0}table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:.25em .6em;text-align:right}\
td:first-child,th:first-child{text-align:left}pre{background:#f6f6f6;padding:.8em;overflow:auto}";

/// A section with the bytes of its pictures, in order, and the seconds it took.
pub struct Made {
    /// The section.
    pub section: Section,
    /// PNG files.
    pub pngs: Vec<Vec<u8>>,
    /// How long it took.
    pub seconds: f64,
}

/// The report as HTML.
pub fn html(made: &[Made], quick: bool) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Conjugate moment measures</title>\
         <style>{STYLE}</style></head><body>\n<h1>Conjugate moment measures: the experiments</h1>\n\
         <p>Made by cmf-cli {} with {} settings.</p>\n<ul>\n",
        env!("CARGO_PKG_VERSION"),
        if quick { "quick (smaller than the paper's)" } else { "full" }
    );
    for (k, m) in made.iter().enumerate() {
        out += &format!("<li><a href=\"#s{k}\">{}</a></li>\n", escaped(m.section.title));
    }
    out += "</ul>\n";
    for (k, m) in made.iter().enumerate() {
        out += &format!("<h2 id=\"s{k}\">{}</h2>\n", escaped(m.section.title));
        for paragraph in &m.section.text {
            out += &format!("<p>{}</p>\n", escaped(paragraph));
        }
        for ((_, caption, _), png) in m.section.pictures.iter().zip(&m.pngs) {
            let caption = escaped(caption);
            out += &format!(
                "<figure><img alt=\"{caption}\" src=\"data:image/png;base64,{}\"><figcaption>{caption}</figcaption>\
                 </figure>\n",
                STANDARD.encode(png)
            );
        }
        m.section.tables.iter().for_each(|t| out += &table(t));
        let settings = serde_json::to_string_pretty(&m.section.settings).unwrap_or_default();
        out += &format!(
            "<details><summary>Settings and seeds ({:.1} s)</summary><pre>{}</pre></details>\n",
            m.seconds,
            escaped(&settings)
        );
    }
    out + "</body></html>\n"
}

fn table(t: &Table) -> String {
    let row = |tag: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|c| format!("<{tag}>{}</{tag}>", escaped(c))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = t.rows.iter().map(|r| row("td", r)).collect();
    format!("<table><caption>{}</caption>\n{}{rows}</table>\n", escaped(&t.caption), row("th", &t.header))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Which;

    #[test]
    fn the_report_holds_its_pictures_and_no_links_out() {
        let mut table = Table::new("a < b", &["x", "y"]);
        table.rows.push(vec!["1".into(), "\"2\"".into()]);
        let section = Section {
            which: Which::Line,
            title: "T & U",
            text: vec!["words".into()],
            pictures: vec![],
            tables: vec![table],
            settings: serde_json::json!({ "seed": 7 }),
        };
        let text = html(&[Made { section, pngs: vec![], seconds: 1.0 }], true);
        for words in ["T &amp; U", "a &lt; b", "&quot;2&quot;", "&quot;seed&quot;: 7", "quick"] {
            assert!(text.contains(words), "{words}");
        }
        assert!(!text.contains("http"), "{text}");
    }
}
