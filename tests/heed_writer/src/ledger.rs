//! The ledger of a database: one record of its own that says what a scan of the others must find.

use heed::RoTxn;

use crate::record;
use crate::store::Table;

/// No other record has this key.
pub const KEY: u64 = u64::MAX;
const PAYLOAD: usize = 24;

#[derive(Clone, Copy, Default)]
pub struct Ledger {
    /// The last commit of the environment: the same in all its databases.
    pub counter: u64,
    /// How many records there are besides the ledger.
    pub entries: u64,
    /// Sum of their checksums, modulo 2^64: it does not depend on their order.
    pub sum: u64,
    /// The vector environment's counter at the time, so that copies of both can be compared; 0 if it was not open.
    pub vector_counter: u64,
}

impl Ledger {
    /// The ledger, or an empty one in a new database. It is not checked.
    pub fn read(table: &Table, transaction: &RoTxn) -> heed::Result<Ledger> {
        let value = table.get(transaction, &KEY)?;
        Ok(value.map_or_else(Ledger::default, |value| {
            let counter = record::word(&value[..8]);
            Ledger::from_payload(counter, &value[16..16 + PAYLOAD])
        }))
    }

    pub fn decode(database: &str, value: &[u8]) -> Result<Ledger, String> {
        let record = record::decode(database, KEY, value)?;
        if record.payload.len() != PAYLOAD {
            return Err(format!("{database}: ledger has {} bytes", record.payload.len()));
        }
        Ok(Ledger::from_payload(record.counter, record.payload))
    }

    pub fn encode(&self, database: &str, value: &mut Vec<u8>) {
        let words = [self.entries, self.sum, self.vector_counter];
        let payload: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        record::encode(database, KEY, self.counter, &payload, value);
    }

    fn from_payload(counter: u64, payload: &[u8]) -> Ledger {
        Ledger {
            counter,
            entries: record::word(&payload[..8]),
            sum: record::word(&payload[8..16]),
            vector_counter: record::word(&payload[16..]),
        }
    }
}
