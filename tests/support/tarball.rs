//! Writes tar archives by hand: as odd as a test wants them.
#![allow(dead_code, reason = "each test uses its part of this")]

/// The time that everything has which is not told otherwise.
pub const TIME: i64 = 1_700_000_000;

/// A member: a header, PAX records before it, and content.
#[derive(Clone)]
pub struct Member {
    pub name: Vec<u8>,
    pub flag: u8,
    pub link: Vec<u8>,
    pub content: Vec<u8>,
    pub pax: Vec<u8>,
    pub header: [u8; 512],
    /// What the size field says, if not the length of the content.
    pub size: Option<u64>,
    /// Bytes that stand before everything else of this member.
    pub before: Vec<u8>,
}

/// A member of any type, root's, 0644 or 0755, of the usual time.
pub fn member(flag: u8, name: impl AsRef<[u8]>) -> Member {
    let mut header = [0; 512];
    header[257..265].copy_from_slice(b"ustar\x0000");
    let member = Member {
        name: name.as_ref().to_vec(),
        flag,
        link: Vec::new(),
        content: Vec::new(),
        pax: Vec::new(),
        header,
        size: None,
        before: Vec::new(),
    };
    member.mode(if flag == b'5' { 0o755 } else { 0o644 }).owner(0, 0).mtime(TIME)
}

pub fn f(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Member {
    let mut file = member(b'0', name);
    file.content = content.as_ref().to_vec();
    file
}

pub fn d(name: impl AsRef<[u8]>) -> Member {
    member(b'5', name)
}

/// A symlink.
pub fn s(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Member {
    member(b'2', name).link(target)
}

/// A hard link.
pub fn h(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Member {
    member(b'1', name).link(target)
}

/// A character device.
pub fn c(name: impl AsRef<[u8]>, major: u64, minor: u64) -> Member {
    member(b'3', name).device(major, minor)
}

impl Member {
    pub fn link(mut self, target: impl AsRef<[u8]>) -> Member {
        self.link = target.as_ref().to_vec();
        self
    }

    pub fn mode(self, mode: u64) -> Member {
        self.field(100, 8, octal(8, mode))
    }

    pub fn owner(self, uid: u64, gid: u64) -> Member {
        self.field(108, 8, number(8, uid)).field(116, 8, number(8, gid))
    }

    pub fn mtime(self, mtime: i64) -> Member {
        self.field(136, 12, octal(12, mtime as u64))
    }

    pub fn device(self, major: u64, minor: u64) -> Member {
        self.field(329, 8, number(8, major)).field(337, 8, number(8, minor))
    }

    pub fn size(mut self, size: u64) -> Member {
        self.size = Some(size);
        self
    }

    /// Overwrites bytes of the header; the checksum is computed afterwards.
    pub fn field(mut self, at: usize, length: usize, bytes: Vec<u8>) -> Member {
        self.header[at..at + length].copy_from_slice(&bytes[..length]);
        self
    }

    /// Adds a PAX record.
    pub fn pax(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Member {
        self.pax.extend(record(key.as_ref(), value.as_ref()));
        self
    }

    pub fn xattr(self, key: &str, value: impl AsRef<[u8]>) -> Member {
        self.pax(format!("SCHILY.xattr.{key}"), value)
    }

    /// Puts raw bytes before the member: another member's, say.
    pub fn after(mut self, bytes: impl AsRef<[u8]>) -> Member {
        self.before.extend_from_slice(bytes.as_ref());
        self
    }

    /// The member as it stands in an archive.
    pub fn bytes(&self) -> Vec<u8> {
        let mut pax = self.pax.clone();
        if self.name.len() > 100 {
            pax.extend(record(b"path", &self.name));
        }
        if self.link.len() > 100 {
            pax.extend(record(b"linkpath", &self.link));
        }
        let mut out = self.before.clone();
        if !pax.is_empty() {
            let mut header = member(b'x', "pax");
            header.content = pax;
            out.extend(header.bytes());
        }
        let mut block = self.header;
        let size = self.size.unwrap_or(self.content.len() as u64);
        let mut put = |at: usize, room: usize, bytes: &[u8]| {
            let length = bytes.len().min(room);
            block[at..at + length].copy_from_slice(&bytes[..length]);
        };
        put(0, 100, &self.name);
        if size > 0 || block_is_zero(&self.header[124..136]) {
            put(124, 12, &number(12, size));
        }
        put(156, 1, &[self.flag]);
        put(157, 100, &self.link);
        seal(&mut block);
        out.extend(block);
        out.extend(&self.content);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }
}

fn block_is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&b| b == 0)
}

/// Computes the checksum of a header.
pub fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
    block[148..155].copy_from_slice(&octal(7, sum));
}

/// An archive of these members, with its end.
pub fn tar(members: &[Member]) -> Vec<u8> {
    let mut out = open(members);
    out.extend([0; 1024]);
    out
}

/// An archive without an end.
pub fn open(members: &[Member]) -> Vec<u8> {
    members.iter().flat_map(Member::bytes).collect()
}

/// A PAX record.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    [format!("{length} ").as_bytes(), key, b"=", value, b"\n"].concat()
}

/// A number in octal, with the NUL at its end.
pub fn octal(width: usize, value: u64) -> Vec<u8> {
    let mut text = format!("{value:0width$o}", width = width - 1).into_bytes();
    text.push(0);
    text
}

/// A number in base 256.
pub fn base256(width: usize, value: i64) -> Vec<u8> {
    let mut bytes = vec![if value < 0 { 0xff } else { 0 }; width];
    for (byte, from) in bytes.iter_mut().rev().zip(value.to_be_bytes().iter().rev()) {
        *byte = *from;
    }
    bytes[0] |= 0x80;
    bytes
}

fn number(width: usize, value: u64) -> Vec<u8> {
    if value < 1 << (3 * (width - 1)) { octal(width, value) } else { base256(width, value as i64) }
}
