//! The comparison's result: medians with spread, ratios to the floor of the same memory, as a table and as JSON
//! lines. Used by `compare`. Ratios pair the runs of one round, so that a slow minute of the machine falls on
//! both sides.

use crate::error::{Error, Result, Tried};
use crate::figures::Figures;
use crate::spread::Spread;
use crate::variant::Variant;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// All runs of one variant, one for each round.
pub struct Row {
    pub variant: Variant,
    pub runs: Vec<Figures>,
}

/// What the runs of one variant amount to.
#[derive(Debug, Serialize)]
pub struct Summary {
    name: String,
    gb_per_sec: Spread,
    cpu_secs_per_gb: Spread,
    /// Over the floor of the same memory, round by round.
    cpu_ratio: Spread,
    speed_ratio: Spread,
    faults_per_gb: f64,
    switches_per_gb: f64,
    rss_bytes_max: u64,
}

/// One summary for each row.
///
/// # Errors
/// If a row has no runs or its memory has no floor.
pub fn summaries(rows: &[Row]) -> Result<Vec<Summary>> {
    rows.iter().map(|row| summary(row, rows)).collect()
}

fn summary(row: &Row, rows: &[Row]) -> Result<Summary> {
    let nothing = || Error::Wrong(format!("{}: no runs to summarize", row.variant.name()));
    let floor = Variant { engine: None, ..row.variant };
    let floor = rows.iter().find(|row| row.variant == floor).ok_or_else(nothing)?;
    let of = |figure: fn(&Figures) -> f64| Spread::of(row.runs.iter().map(figure)).ok_or_else(nothing);
    let ratio = |figure: fn(&Figures) -> f64| {
        Spread::of(row.runs.iter().zip(&floor.runs).map(|(run, floor)| figure(run) / figure(floor))).ok_or_else(nothing)
    };
    Ok(Summary {
        name: row.variant.name(),
        gb_per_sec: of(|run| run.gb_per_sec)?,
        cpu_secs_per_gb: of(|run| run.cpu_secs_per_gb)?,
        cpu_ratio: ratio(|run| run.cpu_secs_per_gb)?,
        speed_ratio: ratio(|run| run.gb_per_sec)?,
        faults_per_gb: of(|run| run.faults as f64 / (run.bytes as f64 / 1e9))?.median,
        switches_per_gb: of(|run| run.switches as f64 / (run.bytes as f64 / 1e9))?.median,
        rss_bytes_max: row.runs.iter().map(|run| run.rss_bytes_max).max().unwrap_or(0),
    })
}

/// As a Markdown table.
pub fn table(summaries: &[Summary]) -> String {
    let mut text = String::from(
        "| variant | GB/s | client CPU-s/GB | CPU over floor | GB/s over floor | faults/GB | switches/GB | max RSS MiB |\n|---|---|---|---|---|---|---|---|\n",
    );
    for s in summaries {
        text += &format!(
            "| {} | {:.2} | {:.3} | {:.2} | {:.2} | {:.0} | {:.0} | {} |\n",
            s.name,
            s.gb_per_sec,
            s.cpu_secs_per_gb,
            s.cpu_ratio,
            s.speed_ratio,
            s.faults_per_gb,
            s.switches_per_gb,
            s.rss_bytes_max >> 20
        );
    }
    text
}

/// A file that JSON lines are appended to.
pub struct Lines {
    file: Option<File>,
}

/// One line: a run of a round, or a summary.
#[derive(Serialize)]
#[serde(tag = "record", rename_all = "lowercase")]
pub enum Line<'a> {
    Run { round: u32, connections: u16, figures: &'a Figures },
    Summary { rounds: u32, connections: u16, summary: &'a Summary },
}

impl Lines {
    /// Without a path nothing is written.
    pub fn open(path: Option<&Path>) -> Result<Lines> {
        let open = |path: &Path| {
            OpenOptions::new().create(true).append(true).open(path).tried(|| format!("open {}", path.display()))
        };
        Ok(Lines { file: path.map(open).transpose()? })
    }

    /// Appends one.
    pub fn push(&mut self, line: &Line<'_>) -> Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let mut text = serde_json::to_string(line).map_err(|e| Error::Wrong(e.to_string()))?;
        text.push('\n');
        file.write_all(text.as_bytes()).tried(|| "append to the file of --out".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Driver;
    use crate::memory::MemoryKind;
    use crate::variant::Crc;

    fn run(gb_per_sec: f64, cpu_secs_per_gb: f64) -> Figures {
        Figures {
            name: String::new(),
            bytes: 2_000_000_000,
            wall_secs: 2.0 / gb_per_sec,
            gb_per_sec,
            user_secs: 0.0,
            sys_secs: 2.0 * cpu_secs_per_gb,
            cpu_secs_per_gb,
            faults: 10,
            switches: 4,
            rss_bytes_max: 5 << 20,
            proof: None,
        }
    }

    #[test]
    fn ratios_pair_the_rounds() {
        // A machine that halves its speed in the second round changes no ratio.
        let floor = Variant { memory: MemoryKind::Memfd, splice: false, engine: None };
        let engine = Variant { memory: MemoryKind::Memfd, splice: false, engine: Some((Driver::Epoll, Crc::Off)) };
        let rows = [
            Row { variant: floor, runs: vec![run(2.0, 0.5), run(1.0, 1.0), run(2.0, 0.5)] },
            Row { variant: engine, runs: vec![run(1.0, 0.75), run(0.5, 1.5), run(1.0, 0.75)] },
        ];
        let summaries = summaries(&rows).unwrap();
        assert_eq!(summaries[1].cpu_ratio, Spread { median: 1.5, min: 1.5, max: 1.5 });
        assert_eq!(summaries[1].speed_ratio, Spread { median: 0.5, min: 0.5, max: 0.5 });
        assert_eq!(summaries[0].cpu_ratio, Spread { median: 1.0, min: 1.0, max: 1.0 });
        let table = table(&summaries);
        let line = "| engine epoll no-crc memfd | 1.00 (0.50-1.00) | 0.750 (0.750-1.500) | 1.50 (1.50-1.50) | 0.50 (0.50-0.50) | 5 | 2 | 5 |";
        assert_eq!(table.lines().nth(3), Some(line), "{table}");
    }

    #[test]
    fn a_row_without_a_floor_is_an_error() {
        let engine = Variant { memory: MemoryKind::Memfd, splice: false, engine: Some((Driver::Epoll, Crc::Off)) };
        assert!(summaries(&[Row { variant: engine, runs: vec![run(1.0, 1.0)] }]).is_err());
    }
}
