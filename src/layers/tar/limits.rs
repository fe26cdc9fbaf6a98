//! The bounds that keep a hostile layer from costing more than it may.

/// What an archive may cost before it is refused (`Kind::TooLong`).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest PAX header, GNU long name or sparse map, in bytes (Go's `maxSpecialFileSize`).
    pub header: usize,
    /// The number of members.
    pub entries: usize,
    /// Names, link targets, xattrs and sparse maps of all members together, in bytes.
    pub bytes: usize,
    /// The number of names in a tree built of the members, with the directories that they only imply.
    pub nodes: usize,
    /// Steps of path resolution and removal while a tree is built, beside 64 for each member: what bounds its time.
    /// A step is about 50 ns.
    pub work: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { header: 1 << 20, entries: 4_000_000, bytes: 512 << 20, nodes: 4_000_000, work: 20_000_000 }
    }
}
