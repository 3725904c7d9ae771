//! A stand-in for Ucotron: writes LMDB environments through the real heed, and checks copies of them.

mod check;
mod json;
mod ledger;
mod options;
mod random;
mod readers;
mod record;
mod store;
mod window;
mod workload;
mod write;

use std::process::ExitCode;

use options::Command;

fn main() -> ExitCode {
    match options::parse(std::env::args().skip(1)) {
        Ok(Command::Write(options)) => write::run(&options),
        Ok(Command::Check(directory)) => check::run(&directory),
        Err(problem) => {
            eprintln!("heed_writer: {problem}\n\n{}", options::USAGE);
            ExitCode::from(2)
        }
    }
}
