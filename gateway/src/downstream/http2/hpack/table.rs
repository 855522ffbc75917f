//! Static and dynamic table of HPACK, in which an index selects a field (RFC 7541 2.3 and appendix A).

use std::collections::VecDeque;

/// Size that each entry has in addition to its bytes (RFC 7541 4.1).
pub(super) const OVERHEAD: usize = 32;

/// Maximum size of the dynamic table: the value that applies without a setting (RFC 9113 6.5.2).
pub(in crate::downstream::http2) const MAX_SIZE: usize = 4096;

#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""),
    ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""),
    ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""),
    ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""),
    ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""),
    ("server", ""), ("set-cookie", ""), ("strict-transport-security", ""), ("transfer-encoding", ""),
    ("user-agent", ""), ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

/// HPACK table of a connection: the static entries and the client's dynamic entries.
#[derive(Debug)]
pub(super) struct Table {
    /// Entries of the dynamic table, the newest first.
    entries: VecDeque<TableEntry>,
    size: usize,
    max_size: usize,
}

#[derive(Debug)]
struct TableEntry {
    /// Name, followed by the value.
    text: Box<[u8]>,
    name: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Table { entries: VecDeque::new(), size: 0, max_size: MAX_SIZE }
    }

    /// Returns the number of bytes of memory that are held.
    pub(super) fn held(&self) -> usize {
        let text: usize = self.entries.iter().map(|entry| entry.text.len()).sum();
        text + self.entries.capacity() * size_of::<TableEntry>()
    }

    /// Returns the name and value of the entry at `index`; `None` if there is no such entry.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let index = index.checked_sub(1)?;
        if let Some((name, value)) = STATIC.get(index) {
            return Some((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.entries.get(index - STATIC.len())?;
        Some(entry.text.split_at(entry.name))
    }

    /// Adds an entry. Removes the oldest entries to make room for it (RFC 7541 4.4).
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + OVERHEAD;
        self.shrink_to(self.max_size.saturating_sub(size));
        if size <= self.max_size {
            self.size += size;
            self.entries.push_front(TableEntry { text: [name, value].concat().into(), name: name.len() });
        }
    }

    /// Sets the dynamic table's maximum size, as the client demands. Returns `None` if `size` is not allowed.
    pub(super) fn resize(&mut self, size: usize) -> Option<()> {
        if size > MAX_SIZE {
            return None;
        }
        self.max_size = size;
        self.shrink_to(size);
        Some(())
    }

    fn shrink_to(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.text.len() + OVERHEAD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_entry_is_first_and_oldest_is_removed() {
        let mut table = Table::new();
        let large = "x".repeat(1000);
        for name in ["a", "b", "c"] {
            table.add(name.as_bytes(), large.as_bytes());
        }
        let name = |table: &Table, index| {
            table.get(index).map(|(name, _)| String::from_utf8_lossy(name).into_owned())
        };
        assert_eq!(name(&table, 0), None);
        assert_eq!(table.get(2), Some((&b":method"[..], &b"GET"[..])));
        assert_eq!(table.get(61), Some((&b"www-authenticate"[..], &b""[..])));
        assert_eq!((name(&table, 62).as_deref(), name(&table, 64).as_deref()), (Some("c"), Some("a")));
        table.add(b"d", large.as_bytes());
        assert_eq!(
            (name(&table, 62).as_deref(), name(&table, 64), name(&table, 65)),
            (Some("d"), Some("b".into()), None)
        );
        // An entry that is larger than the table empties the table (RFC 7541 4.4).
        table.add(b"e", "x".repeat(MAX_SIZE).as_bytes());
        assert_eq!((name(&table, 62), table.size), (None, 0));
        table.add(b"f", b"");
        assert!(table.resize(32).is_some() && table.get(62).is_none());
        assert!(table.resize(MAX_SIZE).is_some() && table.resize(MAX_SIZE + 1).is_none());
    }
}
