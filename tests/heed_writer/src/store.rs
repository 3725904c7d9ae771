//! Environments laid out as Ucotron's are, and one write transaction in them.

use std::fs;
use std::path::{Path, PathBuf};

use heed::byteorder::LittleEndian;
use heed::types::{Bytes, U64};
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RwTxn};

use crate::ledger::{self, Ledger};
use crate::options::WriteOptions;
use crate::readers::ReaderTable;
use crate::record;

pub type Table = Database<U64<LittleEndian>, Bytes>;

pub struct Layout {
    pub name: &'static str,
    pub max_dbs: u32,
    pub databases: &'static [&'static str],
}

pub static VECTOR: Layout = Layout { name: "vector", max_dbs: 5, databases: &["nodes", "hnsw_index"] };
pub static GRAPH: Layout = Layout {
    name: "graph",
    max_dbs: 9,
    databases: &[
        "nodes",
        "edges",
        "adj_out",
        "adj_in",
        "nodes_by_type",
        "community_assign",
        "community_members",
        "agents",
        "shares",
    ],
};
pub static LAYOUTS: [&Layout; 2] = [&VECTOR, &GRAPH];

/// An environment that is open for writing.
pub struct Environment {
    pub layout: &'static Layout,
    pub readers: ReaderTable,
    /// The last commit that it holds.
    pub counter: u64,
    data: PathBuf,
    tables: Vec<Table>,
    environment: Env,
}

impl Environment {
    /// Open it below the given directory, with its databases, which are made where they are missing.
    pub fn open(layout: &'static Layout, options: &WriteOptions) -> heed::Result<Environment> {
        let directory = options.directory.join(layout.name);
        fs::create_dir_all(&directory)?;
        let environment = open_environment(&directory, options, layout.max_dbs)?;
        let mut transaction = environment.write_txn()?;
        let mut tables = Vec::new();
        for name in layout.databases {
            tables.push(environment.create_database(&mut transaction, Some(name))?);
        }
        let counter = Ledger::read(&tables[0], &transaction)?.counter;
        transaction.commit()?;
        let slots = environment.info().maximum_number_of_readers;
        let readers = ReaderTable::open(&directory, slots)?;
        let data = directory.join("data.mdb");
        Ok(Environment { layout, readers, counter, data, tables, environment })
    }

    /// Size of the data file in bytes.
    pub fn file_size(&self) -> heed::Result<u64> {
        Ok(fs::metadata(&self.data)?.len())
    }

    pub fn clear_stale_readers(&self) -> heed::Result<usize> {
        self.environment.clear_stale_readers()
    }

    /// Begin the commit after the last one. Nothing is changed unless it is finished.
    pub fn begin(&self) -> heed::Result<Change<'_>> {
        let transaction = self.environment.write_txn()?;
        let mut ledgers = Vec::new();
        for table in &self.tables {
            ledgers.push(Ledger::read(table, &transaction)?);
        }
        let counter = ledgers[0].counter + 1;
        let (payload, value) = (Vec::new(), Vec::new());
        Ok(Change { environment: self, transaction, ledgers, counter, payload, value })
    }
}

fn open_environment(directory: &Path, options: &WriteOptions, max_dbs: u32) -> heed::Result<Env> {
    let mut choices = EnvOpenOptions::new();
    choices.map_size(options.map_size).max_dbs(max_dbs).max_readers(options.max_readers);
    if !options.sync {
        // SAFETY: only a crash of the machine can harm such files, and these are for tests.
        unsafe { choices.flags(EnvFlags::NO_SYNC) };
    }
    // SAFETY: nothing but LMDB changes the file while it is mapped.
    unsafe { choices.open(directory) }
}

/// One write transaction whose ledgers follow every change. Databases are named by their number in the layout.
pub struct Change<'e> {
    environment: &'e Environment,
    transaction: RwTxn<'e>,
    ledgers: Vec<Ledger>,
    pub counter: u64,
    payload: Vec<u8>,
    value: Vec<u8>,
}

impl Change<'_> {
    pub fn entries(&self, database: usize) -> u64 {
        self.ledgers[database].entries
    }

    pub fn holds(&self, database: usize, key: u64) -> heed::Result<bool> {
        Ok(self.environment.tables[database].get(&self.transaction, &key)?.is_some())
    }

    /// Insert or replace a record whose payload has `size` bytes.
    pub fn put(&mut self, database: usize, key: u64, size: usize) -> heed::Result<()> {
        self.forget(database, key)?;
        record::pattern(self.counter, key, size, &mut self.payload);
        let name = self.environment.layout.databases[database];
        let checksum = record::encode(name, key, self.counter, &self.payload, &mut self.value);
        self.environment.tables[database].put(&mut self.transaction, &key, &self.value)?;
        let ledger = &mut self.ledgers[database];
        ledger.entries += 1;
        ledger.sum = ledger.sum.wrapping_add(checksum);
        Ok(())
    }

    /// Delete a record if it is there.
    pub fn delete(&mut self, database: usize, key: u64) -> heed::Result<()> {
        self.forget(database, key)?;
        self.environment.tables[database].delete(&mut self.transaction, &key)?;
        Ok(())
    }

    /// Write the ledgers and commit; returns the new counter.
    pub fn finish(mut self, vector_counter: u64) -> heed::Result<u64> {
        for (index, ledger) in self.ledgers.iter().enumerate() {
            let name = self.environment.layout.databases[index];
            let ledger = Ledger { counter: self.counter, vector_counter, ..*ledger };
            ledger.encode(name, &mut self.value);
            let table = &self.environment.tables[index];
            table.put(&mut self.transaction, &ledger::KEY, &self.value)?;
        }
        self.transaction.commit()?;
        Ok(self.counter)
    }

    /// Take a record that is about to go out of the ledger.
    fn forget(&mut self, database: usize, key: u64) -> heed::Result<()> {
        let old = self.environment.tables[database].get(&self.transaction, &key)?;
        if let Some(value) = old {
            let ledger = &mut self.ledgers[database];
            ledger.entries -= 1;
            ledger.sum = ledger.sum.wrapping_sub(record::stored_checksum(value));
        }
        Ok(())
    }
}
