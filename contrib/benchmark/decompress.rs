//! Decompresses files to nowhere, on one thread, with the decoders that ctrfs has (zlib-rs, libzstd): the least that
//! looking into a layer for the first time can cost.

use std::fs::File;
use std::io::{self, Read};

fn main() -> io::Result<()> {
    for path in std::env::args_os().skip(1) {
        let mut magic = [0; 4];
        File::open(&path)?.read_exact(&mut magic)?;
        let file = io::BufReader::with_capacity(256 << 10, File::open(&path)?);
        let mut archive: Box<dyn Read> = match magic {
            [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
            _ => Box::new(file),
        };
        let mut buffer = vec![0; 256 << 10];
        while archive.read(&mut buffer)? > 0 {}
    }
    Ok(())
}
