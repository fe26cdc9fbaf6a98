//! A writer of tar archives that does what it is told, also what no sane program would write.

/// An archive being written.
#[derive(Default)]
pub struct Tar(Vec<u8>);

/// What a header says. Everything but the name has an unremarkable default.
pub struct Header<'a> {
    pub name: &'a str,
    /// `0` file, `1` hard link, `2` symlink, `3` char device, `4` block device, `5` directory, `6` fifo.
    pub kind: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    pub link: &'a str,
    pub device: (u32, u32),
    /// Records of a pax header before it: times, long names, `SCHILY.xattr.…`.
    pub pax: &'a [(&'a str, &'a str)],
}

impl<'a> Header<'a> {
    pub fn new(name: &'a str, kind: u8) -> Header<'a> {
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        Header { name, kind, mode, uid: 0, gid: 0, mtime: 1_700_000_000, link: "", device: (0, 0), pax: &[] }
    }
}

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    pub fn dir(self, name: &str) -> Tar {
        self.entry(&Header::new(name, b'5'), b"")
    }

    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Tar {
        self.entry(&Header::new(name, b'0'), content.as_ref())
    }

    pub fn program(self, name: &str, content: impl AsRef<[u8]>) -> Tar {
        self.entry(&Header { mode: 0o755, ..Header::new(name, b'0') }, content.as_ref())
    }

    pub fn symlink(self, name: &str, target: &str) -> Tar {
        self.entry(&Header { link: target, mode: 0o777, ..Header::new(name, b'2') }, b"")
    }

    pub fn hardlink(self, name: &str, target: &str) -> Tar {
        self.entry(&Header { link: target, ..Header::new(name, b'1') }, b"")
    }

    /// An overlay whiteout of `name` (`dir/.wh.name`).
    pub fn whiteout(self, dir: &str, name: &str) -> Tar {
        self.file(&format!("{dir}.wh.{name}"), b"")
    }

    /// Any entry. Names and targets over 100 bytes go into a pax header.
    pub fn entry(mut self, header: &Header, content: &[u8]) -> Tar {
        let mut records: Vec<(&str, &str)> = header.pax.to_vec();
        for (key, value) in [("path", header.name), ("linkpath", header.link)] {
            if value.len() > 100 {
                records.push((key, value));
            }
        }
        if !records.is_empty() {
            let body: String = records.iter().map(|(key, value)| record(key, value)).collect();
            self.block(&Header::new("pax", b'x'), body.as_bytes());
        }
        self.block(header, content);
        self
    }

    /// Bytes that are no entry at all.
    pub fn raw(mut self, bytes: &[u8]) -> Tar {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The archive with its end.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    fn block(&mut self, header: &Header, content: &[u8]) {
        let mut block = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &header.name.as_bytes()[..header.name.len().min(100)]);
        put(100, format!("{:07o}", header.mode).as_bytes());
        put(108, format!("{:07o}", header.uid).as_bytes());
        put(116, format!("{:07o}", header.gid).as_bytes());
        put(124, format!("{:011o}", content.len()).as_bytes());
        put(136, format!("{:011o}", header.mtime.max(0)).as_bytes());
        put(148, b"        ");
        put(156, &[header.kind]);
        put(157, &header.link.as_bytes()[..header.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", header.device.0).as_bytes());
        put(337, format!("{:07o}", header.device.1).as_bytes());
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend_from_slice(&block);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}")
}
