//! Reads an access log in the common or combined format from standard input and prints a summary as JSON.
//!
//!     logsum < access.log

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use regex::Regex;
use serde::Serialize;

#[derive(Default, Serialize)]
struct Summary {
    requests: u64,
    bytes_sent: u64,
    unreadable_lines: u64,
    /// Status code → number of answers.
    statuses: BTreeMap<u16, u64>,
    /// The most requested paths, most requested first.
    top_paths: Vec<PathCount>,
}

#[derive(Serialize)]
struct PathCount {
    path: String,
    requests: u64,
}

const TOP: usize = 5;

fn summarize(lines: impl Iterator<Item = io::Result<String>>) -> io::Result<Summary> {
    let pattern =
        Regex::new(r#"^\S+ \S+ \S+ \[[^\]]+\] "[A-Z]+ (?<path>[^ "]+)[^"]*" (?<status>\d{3}) (?<bytes>\d+|-)"#)
            .expect("the pattern is constant");
    let mut summary = Summary::default();
    let mut paths: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some(found) = pattern.captures(&line) else {
            summary.unreadable_lines += 1;
            continue;
        };
        summary.requests += 1;
        summary.bytes_sent += found["bytes"].parse().unwrap_or(0);
        *summary.statuses.entry(found["status"].parse().unwrap_or(0)).or_default() += 1;
        *paths.entry(found["path"].to_owned()).or_default() += 1;
    }
    let mut counted: Vec<_> = paths
        .into_iter()
        .map(|(path, requests)| PathCount { path, requests })
        .collect();
    // Stable: equal counts stay in alphabetical order.
    counted.sort_by_key(|count| std::cmp::Reverse(count.requests));
    counted.truncate(TOP);
    summary.top_paths = counted;
    Ok(summary)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let summary = summarize(io::stdin().lock().lines())?;
    println!("{}", serde_json::to_string_pretty(&summary)?);
    Ok(())
}
