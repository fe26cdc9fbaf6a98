//! The layer reader against arbitrary blobs.
#![no_main]

#[path = "targets/layer.rs"]
mod layer;
#[path = "targets/shown.rs"]
mod shown;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use std::io::Write;

fuzz_target!(|data: &[u8]| layer::check(data));

/// The longest archive that is altered.
const ARCHIVE: usize = 256 << 10;

// Most changes are made to the archive inside, and mended so far that the reader gets past checksums: to those of gzip
// members and tar headers chance never finds the way.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed.is_multiple_of(4) {
        return fuzzer_mutate(data, size, max_size);
    }
    let Some(mut archive) = layer::unpack(&data[..size], ARCHIVE) else {
        return fuzzer_mutate(data, size, max_size);
    };
    let length = archive.len();
    archive.resize((length + 4096).min(ARCHIVE + 4096), 0);
    let room = archive.len();
    let changed = fuzzer_mutate(&mut archive, length, room);
    archive.truncate(changed);
    shuffle(&mut archive, seed / 4);
    if !seed.is_multiple_of(7) {
        seal(&mut archive);
    }
    let magic = &data[..size.min(4)];
    let packed = match seed % 16 {
        1 => archive,
        2 => gzip(&archive, seed),
        3 => zstd(&archive),
        _ if magic.starts_with(&[0x1f, 0x8b]) => gzip(&archive, seed),
        _ if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) => zstd(&archive),
        _ => archive,
    };
    if packed.len() > max_size {
        return fuzzer_mutate(data, size, max_size);
    }
    data[..packed.len()].copy_from_slice(&packed);
    packed.len()
});

/// Moves whole blocks: members change places, come twice, lose their content.
fn shuffle(archive: &mut Vec<u8>, seed: u32) {
    let blocks = archive.len() / 512;
    if blocks < 2 {
        return;
    }
    let pick = |salt: u32| (seed.wrapping_mul(2_654_435_761).wrapping_add(salt) >> 8) as usize % blocks * 512;
    let (from, to) = (pick(1), pick(77_777));
    let block = archive[from..from + 512].to_vec();
    match seed % 8 {
        0 => drop(archive.splice(to..to, block)),
        1 => drop(archive.drain(from..from + 512)),
        2 => archive[to..to + 512].copy_from_slice(&block),
        _ => {}
    }
}

/// Makes the checksums of tar headers right.
fn seal(archive: &mut [u8]) {
    for block in archive.as_chunks_mut::<512>().0 {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

/// One member, or several.
fn gzip(archive: &[u8], seed: u32) -> Vec<u8> {
    let level = flate2::Compression::new(seed / 16 % 10);
    let size = [usize::MAX, usize::MAX, 3000, 512][seed as usize / 64 % 4];
    let mut out = Vec::new();
    for part in archive.chunks(size.min(archive.len().max(1))) {
        let mut encoder = flate2::write::GzEncoder::new(&mut out, level);
        if encoder.write_all(part).is_err() || encoder.finish().is_err() {
            return Vec::new();
        }
    }
    out
}

fn zstd(archive: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(archive, 1).unwrap_or_default()
}
