//! One build however many ask, and what happens when it fails.

use super::*;
use crate::layers::decode::tests::{Bytes, GZIP, gzip, sample};
use std::sync::atomic::{AtomicU64, Ordering};

/// An archive of files of ten thousand bytes each.
#[derive(Default)]
struct Toy {
    at: u64,
    told: u64,
}

impl Scan for Toy {
    fn push(&mut self, bytes: &[u8], emit: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        if bytes.starts_with(b"defect") {
            panic!("a defect of the reader");
        }
        self.at += bytes.len() as u64;
        while self.told + 10_000 <= self.at {
            let name = format!("file-{}", self.told).into_bytes();
            emit(Entry { name, data: self.told, size: 10_000, ..Entry::default() })?;
            self.told += 10_000;
        }
        Ok(())
    }
    fn finish(&mut self, _emit: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        match self.at % 10_000 {
            1 => fail!(Corrupt, "unexpected end of the archive"),
            _ => Ok(()),
        }
    }
}

pub(in crate::layers) fn config() -> Config {
    Config::new(1, || Box::new(Toy::default()))
}

pub(in crate::layers) fn patient() -> Result<Instant> {
    Ok(Instant::now() + Duration::from_secs(60))
}

/// A blob that counts how often its beginning is read, and whose end waits for a gate.
struct Slow {
    bytes: Bytes,
    begun: AtomicU64,
    gate: Mutex<()>,
}

impl Blob for Slow {
    fn digest(&self) -> &str {
        self.bytes.digest()
    }
    fn size(&self) -> u64 {
        self.bytes.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        // Looking at the magic is no beginning.
        if offset == 0 && buf.len() > 8 {
            self.begun.fetch_add(1, Ordering::Relaxed);
        }
        if offset > 0 {
            drop(self.gate.lock());
        }
        self.bytes.read_at(offset, buf)
    }
}

fn slow(bytes: Vec<u8>) -> Arc<Slow> {
    Arc::new(Slow { bytes: Bytes::new(bytes), begun: AtomicU64::new(0), gate: Mutex::new(()) })
}

fn blob(bytes: Vec<u8>) -> Arc<dyn Blob> {
    Arc::new(Bytes::new(bytes))
}

#[test]
fn many_ask_and_one_builds_and_who_gives_up_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(dir.path()), config());
    let slow = slow(sample(3_000_000, 1));
    let blob: Arc<dyn Blob> = slow.clone();
    let gate = slow.gate.lock().unwrap();
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..10).map(|_| scope.spawn(|| store.index(&blob, GZIP, &patient))).collect();
        let killed = store.index(&blob, GZIP, &|| match store.progress(blob.digest()) {
            Some(progress) if progress.read > 0 => fail!(Interrupted, "killed"),
            _ => patient(),
        });
        assert_eq!(killed.unwrap_err().kind(), Kind::Interrupted);
        let progress = store.progress(blob.digest()).unwrap();
        assert!(progress.read > 0 && progress.read < progress.total && progress.total == 3_000_000);
        let never = store.index(&blob, GZIP, &|| fail!(WouldWait, "a FUSE thread"));
        assert_eq!(never.unwrap_err().kind(), Kind::WouldWait);
        drop(gate);
        for asker in askers {
            assert_eq!(asker.join().unwrap().unwrap().len(), 300);
        }
    });
    assert_eq!(slow.begun.load(Ordering::Relaxed), 1);
    assert_eq!(store.progress(blob.digest()), None);
    // After a restart nothing is read.
    drop(store);
    let store = Store::open(Some(dir.path()), config());
    let index = store.index(&blob, GZIP, &|| fail!(WouldWait, "no need to")).unwrap();
    assert_eq!((index.len(), index.in_memory(), slow.begun.load(Ordering::Relaxed)), (300, false, 1));
    // Another version of the reader believes nothing of it.
    drop(store);
    let store = Store::open(Some(dir.path()), Config { parser: 2, ..config() });
    assert!(store.known(&blob, GZIP).unwrap().is_none());
    assert_eq!(store.index(&blob, GZIP, &patient).unwrap().len(), 300);
    assert_eq!(slow.begun.load(Ordering::Relaxed), 2);
}

#[test]
fn altered_bytes_leave_nothing_behind_and_everybody_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(dir.path()), config());
    let mut altered = Bytes::new(sample(2_000_000, 2));
    altered.bytes[1_999_999] ^= 1;
    let altered: Arc<dyn Blob> = Arc::new(altered);
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..5).map(|_| scope.spawn(|| store.index(&altered, GZIP, &patient))).collect();
        for asker in askers {
            let error = asker.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), Kind::Digest, "{error}");
            assert!(error.to_string().contains(altered.digest()));
        }
    });
    assert_eq!(index::sweep(&dir.path().join("idx/v1"), u64::MAX), 0);
    // The failure is remembered, and forgotten on demand.
    let never = || fail!(WouldWait, "not again");
    assert_eq!(store.index(&altered, GZIP, &never).unwrap_err().kind(), Kind::Digest);
    store.forget(altered.digest());
    assert_eq!(store.index(&altered, GZIP, &never).unwrap_err().kind(), Kind::WouldWait);
}

#[test]
fn what_cannot_be_indexed_says_why() {
    let store = Store::open(None, config());
    let index = |bytes: Vec<u8>, media_type: &str| store.index(&blob(bytes), media_type, &patient).unwrap_err();
    assert_eq!(index(sample(10_001, 1), GZIP).kind(), Kind::Corrupt);
    assert_eq!(index(gzip(b"x", 6), "application/vnd.oci.image.layer.v1.tar").kind(), Kind::Corrupt);
    assert_eq!(index(vec![], "application/vnd.oci.image.layer.v1.tar+gzip+encrypted").kind(), Kind::Unsupported);
    assert_eq!(index(b"defect".to_vec(), GZIP).kind(), Kind::Io);
    // A known layer under a media type that does not unpack it.
    let layer = blob(gzip(&sample(50_000, 1), 6));
    assert_eq!(store.index(&layer, GZIP, &patient).unwrap().len(), 5);
    let wrong = store.index(&layer, "application/vnd.oci.image.layer.v1.tar", &patient);
    assert_eq!(wrong.unwrap_err().kind(), Kind::Corrupt);
    // An image that names a layer wrongly does no harm to one that names it right.
    let layer = blob(gzip(&sample(60_000, 1), 6));
    assert!(store.index(&layer, "application/vnd.oci.image.layer.v1.tar", &patient).is_err());
    assert!(store.index(&layer, GZIP, &patient).is_ok());
}

#[test]
fn without_a_disk_it_works_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("no-directory");
    fs::write(&file, b"").unwrap();
    for dir in [None, Some(file.as_path())] {
        let store = Store::open(dir, config());
        let bytes = sample(5_000_000, 3);
        let layer = blob(gzip(&bytes, 6));
        let index = store.index(&layer, GZIP, &patient).unwrap();
        assert!(index.in_memory());
        let mut got = vec![0; 1000];
        store.reader(layer.clone(), &index).read_at(4_000_000, &mut got).unwrap();
        assert!(got == bytes[4_000_000..4_001_000]);
        assert!(Arc::ptr_eq(&index, &store.index(&layer, GZIP, &|| fail!(WouldWait, "it is known")).unwrap()));
    }
}

#[test]
fn a_damaged_index_is_built_again() {
    let dir = tempfile::tempdir().unwrap();
    let layer = blob(gzip(&sample(5_000_000, 4), 6));
    let path = {
        let index = Store::open(Some(dir.path()), config()).index(&layer, GZIP, &patient).unwrap();
        let hex = index.digest().hex();
        dir.path().join("idx/v1/sha256").join(&hex[..2]).join(hex)
    };
    let good = fs::read(&path).unwrap();
    for at in [0, 9, 100, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 4;
        fs::write(&path, &bad).unwrap();
        let index = Store::open(Some(dir.path()), config()).index(&layer, GZIP, &patient).unwrap();
        assert_eq!(index.len(), 500);
        assert!(fs::read(&path).unwrap() == good);
    }
    assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn several_layers_are_built_at_once_and_the_end_of_a_store_ends_them() {
    let store = Store::open(None, config());
    let layers: Vec<_> = (1..6).map(|n| (blob(gzip(&sample(n * 100_000, n as u64), 6)), GZIP.to_owned())).collect();
    let indexes = store.indexes(&layers, &patient).unwrap();
    assert_eq!(indexes.iter().map(|i| i.len()).collect::<Vec<_>>(), [10, 20, 30, 40, 50]);

    let slow = slow(sample(3_000_000, 9));
    let gate = slow.gate.lock().unwrap();
    let layer: Arc<dyn Blob> = slow.clone();
    store.start(&layer, GZIP).unwrap();
    let other = store.clone();
    drop(store);
    assert!(other.progress(layer.digest()).is_some());
    let inner = other.0.inner.clone();
    let job = jobs::start(&inner, &layer).unwrap();
    drop(other);
    assert_eq!(job.wait(&patient).unwrap_err().kind(), Kind::Cancelled);
    drop(gate);
}
