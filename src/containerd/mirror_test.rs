use super::*;
use crate::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

/// A containerd of numbers by name that counts what it is asked.
struct Toy {
    truth: Mutex<BTreeMap<String, u32>>,
    link: Mutex<Link>,
    lists: AtomicU64,
    gets: AtomicU64,
}

impl Toy {
    fn new() -> Toy {
        let truth = [("a".to_string(), 1), ("b".to_string(), 2)].into();
        let link = Mutex::new(Link { epoch: 1, away: false });
        Toy { truth: Mutex::new(truth), link, lists: AtomicU64::new(0), gets: AtomicU64::new(0) }
    }
    fn asked(&self) -> (u64, u64) {
        (self.lists.load(Ordering::SeqCst), self.gets.load(Ordering::SeqCst))
    }
}

impl Source<String, u32> for Toy {
    fn link(&self) -> Link {
        *lock(&self.link)
    }
    fn trust(&self) -> Duration {
        Duration::from_secs(60)
    }
    fn list(&self) -> Result<BTreeMap<String, u32>> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        Ok(lock(&self.truth).clone())
    }
    fn get(&self, key: &String) -> Result<Option<u32>> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        match key.as_str() {
            "broken" => Err(Error::new(Kind::Away, "away")),
            _ => Ok(lock(&self.truth).get(key).copied()),
        }
    }
}

#[test]
fn a_change_costs_one_question_and_memory_answers_the_rest() {
    let (toy, keyed) = (Toy::new(), Keyed::default());
    assert_eq!(keyed.all(&toy).unwrap().len(), 2);
    let held = keyed.all(&toy).unwrap();
    lock(&toy.truth).insert("a".into(), 10);
    lock(&toy.truth).remove("b");
    assert_eq!(wait::never(|| keyed.one(&"a".into(), &toy)).unwrap(), Some(1));
    keyed.touch("a".into());
    assert!(wait::would_wait(&wait::never(|| keyed.one(&"a".into(), &toy))));
    assert_eq!(wait::never(|| keyed.one(&"b".into(), &toy)).unwrap(), Some(2));
    assert_eq!(keyed.one(&"a".into(), &toy).unwrap(), Some(10));
    keyed.touch("b".into());
    assert_eq!(*keyed.all(&toy).unwrap(), [("a".to_string(), 10)].into());
    assert_eq!((held.len(), toy.asked()), (2, (1, 2)));
}

#[test]
fn without_events_an_answer_is_believed_for_a_second_and_away_for_ever() {
    let (toy, keyed) = (Toy::new(), Keyed::default());
    lock(&toy.link).epoch = 0;
    assert_eq!(keyed.one(&"a".into(), &toy).unwrap(), Some(1));
    assert_eq!(keyed.one(&"a".into(), &toy).unwrap(), Some(1));
    assert_eq!(toy.asked(), (0, 1));
    keyed.all(&toy).unwrap();
    lock(&keyed.state).asked -= SECOND;
    keyed.all(&toy).unwrap();
    assert_eq!(toy.asked(), (2, 1));
    keyed.invalidate();
    lock(&toy.link).away = true;
    assert_eq!(wait::never(|| keyed.all(&toy)).unwrap().len(), 2);
    lock(&toy.link).away = false;
    keyed.all(&toy).unwrap();
    assert_eq!(toy.asked(), (3, 1));
}

#[test]
fn an_answer_that_was_overtaken_is_not_believed() {
    struct Slow<'a>(&'a Toy, &'a Keyed<String, u32>);
    impl Source<String, u32> for Slow<'_> {
        fn link(&self) -> Link {
            self.0.link()
        }
        fn trust(&self) -> Duration {
            self.0.trust()
        }
        fn list(&self) -> Result<BTreeMap<String, u32>> {
            let old = self.0.list();
            lock(&self.0.truth).insert("a".into(), 5);
            self.1.touch("a".into());
            old
        }
        fn get(&self, key: &String) -> Result<Option<u32>> {
            self.0.get(key)
        }
    }
    let (toy, keyed) = (Toy::new(), Keyed::default());
    keyed.all(&Slow(&toy, &keyed)).unwrap();
    assert_eq!(keyed.one(&"a".into(), &toy).unwrap(), Some(5));
    assert_eq!(keyed.one(&"broken".into(), &toy).unwrap(), None);
    keyed.touch("broken".into());
    assert_eq!(keyed.one(&"broken".into(), &toy).unwrap(), None);
}

/// Whoever reads after a change sees it, also if the same name changes again while it is asked for.
#[test]
fn a_reader_sees_what_changed_before_he_came() {
    struct Busy<'a>(&'a Toy, &'a Keyed<String, u32>);
    impl Source<String, u32> for Busy<'_> {
        fn link(&self) -> Link {
            self.0.link()
        }
        fn trust(&self) -> Duration {
            self.0.trust()
        }
        fn list(&self) -> Result<BTreeMap<String, u32>> {
            self.0.list()
        }
        fn get(&self, key: &String) -> Result<Option<u32>> {
            let old = self.0.get(key);
            self.1.touch(key.clone());
            old
        }
    }
    let (toy, keyed) = (Toy::new(), Keyed::default());
    keyed.all(&toy).unwrap();
    lock(&toy.truth).insert("c".into(), 3);
    lock(&toy.truth).remove("a");
    keyed.touch("c".into());
    keyed.touch("a".into());
    let seen = keyed.all(&Busy(&toy, &keyed)).unwrap();
    assert_eq!(*seen, [("b".to_string(), 2), ("c".to_string(), 3)].into());
    lock(&toy.truth).insert("c".into(), 4);
    assert_eq!(keyed.all(&toy).unwrap().get("c"), Some(&4), "it is asked for again");
}

#[test]
fn the_first_question_for_one_brings_them_all() {
    let (toy, keyed) = (Toy::new(), Keyed::default());
    assert_eq!(keyed.one(&"a".into(), &toy).unwrap(), Some(1));
    assert_eq!(wait::never(|| keyed.one(&"b".into(), &toy)).unwrap(), Some(2));
    assert_eq!(toy.asked(), (1, 0));
}

#[test]
fn who_asks_again_ends_when_there_is_nobody_to_ask_and_says_so() {
    let (toy, keyed) = (Toy::new(), Keyed::default());
    keyed.all(&toy).unwrap();
    lock(&keyed.state).renewing = true;
    keyed.promise(Duration::from_secs(60));
    lock(&toy.link).away = true;
    let (said, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || keyed.renew(&toy, || said.send(()).unwrap()));
    told.recv_timeout(Duration::from_secs(20)).expect("it stands still");
}
