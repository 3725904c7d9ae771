//! The command `check`: scans copies of the environments and proves that each is one commit, whole.

use std::path::Path;
use std::process::ExitCode;

use heed::types::DecodeIgnore;
use heed::types::Str;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn};

use crate::json::Json;
use crate::ledger::{self, Ledger};
use crate::record;
use crate::store::{Layout, Table, LAYOUTS, VECTOR};

const HNSW_INDEX: &str = "hnsw_index";

pub fn run(directory: &Path) -> ExitCode {
    match check_all(directory) {
        Ok(mut fields) => {
            fields.insert(0, ("ok", Json::Bool(true)));
            println!("{}", Json::Object(fields));
            ExitCode::SUCCESS
        }
        Err(problem) => {
            let fields = vec![("ok", Json::Bool(false)), ("problem", Json::Text(problem))];
            println!("{}", Json::Object(fields));
            ExitCode::FAILURE
        }
    }
}

fn check_all(directory: &Path) -> Result<Vec<(&'static str, Json)>, String> {
    let mut found = Vec::new();
    for layout in LAYOUTS {
        let home = directory.join(layout.name);
        if home.exists() {
            let checked = check_environment(&home, layout);
            found.push((layout.name, checked.map_err(|problem| format!("{}: {problem}", layout.name))?));
        }
    }
    if found.is_empty() {
        return Err(format!("no environment found in {}", directory.display()));
    }
    Ok(found)
}

fn check_environment(home: &Path, layout: &Layout) -> Result<Json, String> {
    let environment = open(home, layout).map_err(text)?;
    let transaction = environment.read_txn().map_err(text)?;
    check_names(&environment, &transaction, layout)?;
    let mut total = Ledger::default();
    for (index, name) in layout.databases.iter().enumerate() {
        let table: Option<Table> = environment.open_database(&transaction, Some(name)).map_err(text)?;
        let table = table.ok_or_else(|| format!("{name}: no such database"))?;
        let ledger = check_table(name, &table, &transaction)?;
        let expected = (total.counter, total.vector_counter);
        if index > 0 && (ledger.counter, ledger.vector_counter) != expected {
            return Err(format!(
                "{name}: of commit {}, but {} of {}",
                ledger.counter, layout.databases[0], total.counter
            ));
        }
        total = Ledger { entries: total.entries + ledger.entries, ..ledger };
    }
    let mut fields = vec![("counter", Json::Number(total.counter)), ("entries", Json::Number(total.entries))];
    if !std::ptr::eq(layout, &VECTOR) {
        fields.push(("vector_counter", Json::Number(total.vector_counter)));
    }
    Ok(Json::Object(fields))
}

fn open(home: &Path, layout: &Layout) -> heed::Result<Env> {
    let mut choices = EnvOpenOptions::new();
    choices.max_dbs(layout.max_dbs);
    // SAFETY: it only reads.
    unsafe { choices.flags(EnvFlags::READ_ONLY) };
    // SAFETY: nobody changes a copy while it is checked. If it is damaged this process may crash: the caller counts
    // that as a failed check.
    unsafe { choices.open(home) }
}

/// The main database holds the databases of the layout and nothing else.
fn check_names(environment: &Env, transaction: &RoTxn, layout: &Layout) -> Result<(), String> {
    let main: Option<Database<Str, DecodeIgnore>> = environment.open_database(transaction, None).map_err(text)?;
    let mut names = Vec::new();
    for entry in main.ok_or("no main database")?.iter(transaction).map_err(text)? {
        names.push(entry.map_err(text)?.0);
    }
    let mut expected = layout.databases.to_vec();
    expected.sort_unstable();
    if names != expected {
        return Err(format!("databases {names:?}, expected {expected:?}"));
    }
    Ok(())
}

/// Scan a database: every record whole and in order, and together what the ledger says.
fn check_table(name: &str, table: &Table, transaction: &RoTxn) -> Result<Ledger, String> {
    let value = table.get(transaction, &ledger::KEY).map_err(|error| format!("{name}: {error}"))?;
    let ledger = Ledger::decode(name, value.ok_or_else(|| format!("{name}: no ledger"))?)?;
    let (mut entries, mut sum, mut last) = (0_u64, 0_u64, None);
    for entry in table.iter(transaction).map_err(text)? {
        let (key, value) = entry.map_err(|error| format!("{name}: {error}"))?;
        // LMDB compares the bytes, and they are little-endian. This also ends the scan of a tree with a loop.
        if last >= Some(key.to_le_bytes()) {
            return Err(format!("{name}: key {key} is out of order"));
        }
        last = Some(key.to_le_bytes());
        if key == ledger::KEY {
            continue;
        }
        let record = record::decode(name, key, value)?;
        if record.counter > ledger.counter {
            return Err(format!("{name}: key {key} of commit {}, but the last is {}", record.counter, ledger.counter));
        }
        if name == HNSW_INDEX && record.counter != ledger.counter {
            return Err(format!("{name}: of commit {}, expected {}", record.counter, ledger.counter));
        }
        entries += 1;
        sum = sum.wrapping_add(record.checksum);
    }
    let counted = table.len(transaction).map_err(text)?;
    if (entries, sum, counted) != (ledger.entries, ledger.sum, ledger.entries + 1) {
        return Err(format!(
            "{name}: {entries} records with sum {sum:#x} and {counted} by LMDB's count, expected {} with sum {:#x}",
            ledger.entries, ledger.sum
        ));
    }
    Ok(ledger)
}

fn text(error: heed::Error) -> String {
    error.to_string()
}
