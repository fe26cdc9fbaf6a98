use super::*;
use crate::node::{Attr, Place, Seat, Target, handle};

const SHORTLY: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(30);

/// Something for names to stand for.
struct Nothing;

impl Place for Nothing {
    fn attr(&self, _: Seat) -> crate::error::Result<Attr> {
        crate::fail!(NotFound, "nothing")
    }
    fn name(&self, _: Seat) -> Name {
        Name::Borrowed(b"nothing")
    }
    fn lookup(self: Arc<Self>, _: &[u8]) -> crate::error::Result<Option<Node>> {
        Ok(None)
    }
    fn list(self: Arc<Self>) -> crate::error::Result<Vec<(Name, Node)>> {
        Ok(Vec::new())
    }
    fn target(&self, _: Seat) -> crate::error::Result<Target> {
        crate::fail!(NotFound, "nothing")
    }
    fn open(&self, _: Seat) -> crate::error::Result<handle::Opened> {
        crate::fail!(NotFound, "nothing")
    }
    fn xattrs(&self, _: Seat) -> crate::error::Result<Vec<(String, Vec<u8>)>> {
        Ok(Vec::new())
    }
}

fn names(count: usize, skip: usize) -> Arc<Names> {
    let entry = |n: usize| (Name::Owned(format!("name {n}").into_bytes()), Node::of(Arc::new(Nothing)));
    Arc::new(Names::new((0..count).filter(|n| *n != skip).map(entry).collect()))
}

fn changes(all: &Listings, ino: u64) -> u128 {
    all.stamp(ino).0.as_nanos()
}

#[test]
fn the_age_of_a_listing_is_told_by_its_mtime_until_it_is_read_again() {
    let all = Listings::default();
    assert_eq!(all.stamp(1), (Duration::ZERO, Duration::MAX), "nobody has read it");
    assert!(all.begun(1, LONG, None), "its attributes may have been told without regard to its listing");
    assert_eq!(changes(&all, 1), 0);
    assert!(all.stamp(1).1 <= LONG);
    all.noticed(1);
    assert_eq!([changes(&all, 1), changes(&all, 1)], [1, 1]);
    assert!(all.begun(1, LONG, None), "and again while there was no listing");
    assert_eq!(changes(&all, 1), 1);
    assert!(all.noticed(1) && all.noticed(1) && !all.noticed(2));
    assert_eq!(changes(&all, 1), 2, "nobody has read it between the two");
    all.forget(1);
    assert_eq!(changes(&all, 1), 0, "the kernel has nothing of it either");
}

#[test]
fn what_is_not_told_is_believed_for_a_while_and_its_attributes_for_no_longer() {
    let all = Listings::default();
    all.begun(1, SHORTLY, None);
    let (age, left) = all.stamp(1);
    assert!(age.is_zero() && left <= SHORTLY);
    std::thread::sleep(SHORTLY);
    assert_eq!([changes(&all, 1), changes(&all, 1)], [1, 1], "found old once");
    assert_eq!(all.stamp(1).1, Duration::MAX, "it has none");
    assert!(all.begun(1, SHORTLY, None));
    // A second reader while the first is at it: the kernel may mix what they get.
    std::thread::sleep(SHORTLY / 2);
    all.begun(1, SHORTLY, None);
    std::thread::sleep(SHORTLY / 2);
    assert_eq!(changes(&all, 1), 2);
}

#[test]
fn a_notice_of_members_concerns_who_was_listed_since_the_last_one() {
    let all = Listings::default();
    all.begun(1, LONG, Some(7));
    all.begun(2, LONG, Some(8));
    assert_eq!(all.other_members(7), HashSet::from([1]));
    assert_eq!([changes(&all, 1), changes(&all, 2)], [1, 0]);
    assert!(all.other_members(7).is_empty(), "the kernel has no listing of it");
}

#[test]
fn a_command_makes_old_what_is_believed_for_a_moment() {
    let all = Listings::default();
    all.begun(1, Duration::from_secs(1), None);
    all.begun(2, LONG, None);
    assert_eq!(all.changed(Duration::from_secs(1)), [1]);
    assert_eq!([changes(&all, 1), changes(&all, 2)], [1, 0]);
    assert!(all.changed(Duration::from_secs(1)).is_empty());
}

#[test]
fn a_listing_of_names_that_live_shortly_lives_as_shortly() {
    let all = Listings::default();
    all.begun(1, LONG, None);
    all.shortened(1, usize::from(FEW), SHORTLY);
    assert!(all.stamp(1).1 > SHORTLY);
    all.shortened(1, 1, SHORTLY);
    assert!(all.stamp(1).1 <= SHORTLY);
}

#[test]
fn a_reader_goes_on_behind_the_name_that_he_got_last() {
    let (all, gone) = (names(10, 10), names(10, 3));
    let at = offset(&all.entries[3].0);
    assert_eq!([all.after(0), all.after(DOTS), all.after(at), all.after(END)], [0, 0, 4, 10]);
    all.ended(4);
    assert_eq!(all.after(at), 4);
    assert_eq!(all.after(offset(&all.entries[7].0)), 8, "not everybody is where the last one was");
    assert_eq!(gone.after(at), 0, "rather a name twice than one missed");
    assert_eq!(gone.after(offset(b"name 5")), 5, "names that went before it do not matter");
}

#[test]
fn names_are_kept_for_the_next_part_and_not_too_many_of_them() {
    let all = Listings::default();
    all.keep(1, &names(20, 20));
    all.keep(1, &names(30, 30));
    assert_eq!(all.kept(1).unwrap().entries.len(), 30);
    all.ended(1);
    assert!(all.kept(1).is_none(), "short, and read");
    all.keep(1, &names(SHORT, SHORT));
    all.ended(1);
    assert!(all.kept(1).is_some(), "whoever deletes what he lists comes back");
    all.keep(2, &names(NAMES, NAMES));
    assert!(all.kept(1).is_none() && all.kept(2).is_some());
    all.forget(2);
    assert!(all.kept(2).is_none());
    assert_eq!(all.names().count, 0);
}
