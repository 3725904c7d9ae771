//! The reader table of an environment: heed has no call that lists it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::json::Json;
use crate::record::word;

const SLOT: usize = 64;
const IDLE: u64 = u64::MAX;

pub struct ReaderTable {
    /// Kept open as long as the environment: closing any descriptor of a file drops the process's locks on it.
    lock: File,
    slots: usize,
}

impl ReaderTable {
    /// The table of the environment in `directory`, which is open and has so many `slots`.
    pub fn open(directory: &Path, slots: u32) -> io::Result<ReaderTable> {
        Ok(ReaderTable { lock: File::open(directory.join("lock.mdb"))?, slots: slots as usize })
    }

    /// One object for every slot in use, also of processes that are gone; the txnid is null while a slot is idle.
    pub fn list(&self) -> io::Result<Json> {
        // The slots are the end of the file, so nothing need be known about the header before them.
        let start = self.lock.metadata()?.len() - (self.slots * SLOT) as u64;
        let mut table = vec![0; self.slots * SLOT];
        self.lock.read_exact_at(&mut table, start)?;
        let used = table.chunks(SLOT).filter(|slot| word(&slot[8..12]) != 0);
        Ok(Json::List(used.map(describe).collect()))
    }
}

fn describe(slot: &[u8]) -> Json {
    let txnid = word(&slot[..8]);
    Json::Object(vec![
        ("pid", Json::Number(word(&slot[8..12]))),
        ("thread", Json::Number(word(&slot[16..24]))),
        ("txnid", if txnid == IDLE { Json::Null } else { Json::Number(txnid) }),
    ])
}
