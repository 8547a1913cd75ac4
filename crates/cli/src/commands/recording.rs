//! What MCAP has no place for: the position and the tag of each message, in a private record ahead of each chunk. docs/operating.md
//! specifies it.

/// The opcode of the record.
pub const OPCODE: u8 = 0x81;

/// What it starts with: whose it is, and the version.
const MAGIC: [u8; 8] = *b"shmpipe1";

/// Bytes before the entries, and of an entry.
const HEADER: usize = 32;
const ENTRY: usize = 12;

/// Where the messages of the next chunk come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// The pipe's segment, and the bytes of its ring.
    pub segment_id: u64,
    pub capacity: u64,
    /// Of each message.
    pub entries: Vec<Origin>,
}

/// Where a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub position: u64,
    pub tag: u32,
}

impl Origins {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.entries.len() * ENTRY);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.segment_id.to_le_bytes());
        bytes.extend_from_slice(&self.capacity.to_le_bytes());
        for Origin { position, tag } in &self.entries {
            bytes.extend_from_slice(&position.to_le_bytes());
            bytes.extend_from_slice(&tag.to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the contents of a private record. `Ok(None)` if it is not ours.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, Damaged> {
        if !bytes.starts_with(&MAGIC) {
            return Ok(None);
        }
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let read = || {
            let count = word(12)? as usize;
            let is_whole = bytes.len() == count.checked_mul(ENTRY)?.checked_add(HEADER)?;
            if !is_whole || word(8)? != crc32fast::hash(&bytes[12..]) {
                return None;
            }
            let entry = |index: usize| {
                let at = HEADER + index * ENTRY;
                Some(Origin { position: long(at)?, tag: word(at + 8)? })
            };
            let entries = (0..count).map(entry).collect::<Option<_>>()?;
            Some(Origins { segment_id: long(16)?, capacity: long(24)?, entries })
        };
        read().map(Some).ok_or(Damaged)
    }
}

/// The record is ours and not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_written_and_nothing_else_is() {
        let entries = vec![Origin { position: 1 << 40, tag: 7 }, Origin { position: 1 << 41, tag: u32::MAX }];
        let origins = Origins { segment_id: 0x1234_5678_9abc_def0, capacity: 4096, entries };
        let bytes = origins.encode();
        assert_eq!(bytes.len(), 32 + 2 * 12);
        assert_eq!(Origins::decode(&bytes), Ok(Some(origins)));
        for length in 0..8 {
            assert_eq!(Origins::decode(&bytes[..length]), Ok(None), "{length}");
        }
        for length in 8..bytes.len() {
            assert_eq!(Origins::decode(&bytes[..length]), Err(Damaged), "{length}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(Origins::decode(&changed), if at < 8 { Ok(None) } else { Err(Damaged) }, "{at}");
        }
        assert_eq!(Origins::decode(&[&bytes[..], &[0]].concat()), Err(Damaged));
    }
}
