//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use crate::store::{Layout, LAYOUTS};

pub const USAGE: &str = "usage:
  heed_writer write --directory DIR [--only vector|graph] [--paused] [--no-sync]
                    [--rate COMMITS_PER_SECOND] [--map-size BYTES] [--index-size BYTES]
                    [--nodes NUMBER] [--max-readers NUMBER] [--seed NUMBER]
  heed_writer check DIR";

pub enum Command {
    Write(WriteOptions),
    Check(PathBuf),
}

pub struct WriteOptions {
    pub directory: PathBuf,
    /// Which environments to open, in the order in which they are committed.
    pub layouts: Vec<&'static Layout>,
    /// Do nothing after the first commit until told to.
    pub paused: bool,
    pub sync: bool,
    /// Commits per second; 0: as fast as it goes.
    pub rate: f64,
    pub map_size: usize,
    /// Size of the HNSW value in bytes, on average.
    pub index_size: usize,
    /// How many nodes live at once, at most.
    pub nodes: u64,
    pub max_readers: u32,
    pub seed: u64,
}

impl Default for WriteOptions {
    fn default() -> Self {
        WriteOptions {
            directory: PathBuf::new(),
            layouts: LAYOUTS.to_vec(),
            paused: false,
            sync: true,
            rate: 0.0,
            map_size: 1 << 30,
            index_size: 200_000,
            nodes: 2000,
            max_readers: 126,
            seed: 1,
        }
    }
}

pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut arguments = arguments;
    match arguments.next().as_deref() {
        Some("write") => parse_write(arguments).map(Command::Write),
        Some("check") => Ok(Command::Check(value("check", &mut arguments)?)),
        _ => Err("expected the command write or check".to_owned()),
    }
}

fn parse_write(mut arguments: impl Iterator<Item = String>) -> Result<WriteOptions, String> {
    let mut options = WriteOptions::default();
    while let Some(name) = arguments.next() {
        let rest = &mut arguments;
        match name.as_str() {
            "--directory" => options.directory = value(&name, rest)?,
            "--only" => options.layouts = vec![layout(&value::<String>(&name, rest)?)?],
            "--paused" => options.paused = true,
            "--no-sync" => options.sync = false,
            "--rate" => options.rate = value(&name, rest)?,
            "--map-size" => options.map_size = value(&name, rest)?,
            "--index-size" => options.index_size = value(&name, rest)?,
            "--nodes" => options.nodes = value(&name, rest)?,
            "--max-readers" => options.max_readers = value(&name, rest)?,
            "--seed" => options.seed = value(&name, rest)?,
            _ => return Err(format!("unknown option {name}")),
        }
    }
    if options.directory.as_os_str().is_empty() {
        return Err("--directory is missing".to_owned());
    }
    if options.nodes == 0 {
        return Err("--nodes is 0, expected at least 1".to_owned());
    }
    Ok(options)
}

fn layout(name: &str) -> Result<&'static Layout, String> {
    let found = LAYOUTS.into_iter().find(|layout| layout.name == name);
    found.ok_or_else(|| format!("unknown environment {name}"))
}

fn value<T: FromStr>(name: &str, arguments: &mut impl Iterator<Item = String>) -> Result<T, String> {
    let text = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
    text.parse().map_err(|_| format!("{name} does not take the value {text}"))
}
