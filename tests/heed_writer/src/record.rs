//! Values that prove themselves.
//!
//! Layout, all numbers little-endian u64: commit counter, own key, payload, checksum of all before it and of the
//! database's name. So a value that was torn, moved to another key or taken from another database is noticed.

use crate::random::Random;

const WORD: usize = 8;
const OVERHEAD: usize = 3 * WORD;

pub struct Record<'v> {
    /// The commit that wrote it.
    pub counter: u64,
    pub payload: &'v [u8],
    pub checksum: u64,
}

/// Put a whole value into `value`; returns its checksum.
pub fn encode(database: &str, key: u64, counter: u64, payload: &[u8], value: &mut Vec<u8>) -> u64 {
    value.clear();
    value.extend_from_slice(&counter.to_le_bytes());
    value.extend_from_slice(&key.to_le_bytes());
    value.extend_from_slice(payload);
    let checksum = checksum(database, value);
    value.extend_from_slice(&checksum.to_le_bytes());
    checksum
}

pub fn decode<'v>(database: &str, key: u64, value: &'v [u8]) -> Result<Record<'v>, String> {
    if value.len() < OVERHEAD {
        return Err(format!("{database}: value of key {key} has only {} bytes", value.len()));
    }
    let (content, end) = value.split_at(value.len() - WORD);
    let record = Record { counter: word(&content[..WORD]), payload: &content[2 * WORD..], checksum: word(end) };
    if checksum(database, content) != record.checksum {
        return Err(format!("{database}: value of key {key} has a wrong checksum"));
    }
    let own_key = word(&content[WORD..2 * WORD]);
    if own_key != key {
        return Err(format!("{database}: value of key {own_key} found at key {key}"));
    }
    Ok(record)
}

/// The checksum that a value of ours carries, believed.
pub fn stored_checksum(value: &[u8]) -> u64 {
    word(&value[value.len() - WORD..])
}

/// Fill `payload` with `size` bytes that depend on the commit and the key.
pub fn pattern(counter: u64, key: u64, size: usize, payload: &mut Vec<u8>) {
    let mut random = Random::new(counter ^ key.rotate_left(32));
    payload.clear();
    while payload.len() < size {
        payload.extend_from_slice(&random.next().to_le_bytes());
    }
    payload.truncate(size);
}

pub fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; WORD];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// FNV-1a by words instead of bytes, to cost little beside the commit; the rotation brings high bits down again.
/// Every step is a bijection of state and word, so a change within one word is always noticed.
fn checksum(database: &str, content: &[u8]) -> u64 {
    let chunks = database.as_bytes().chunks(WORD).chain(content.chunks(WORD));
    let state = chunks.fold(0xCBF2_9CE4_8422_2325_u64, |state, chunk| {
        (state ^ word(chunk)).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(29)
    });
    state ^ content.len() as u64
}
