use super::*;

fn open(texts: &Arc<Texts>, bytes: &str) -> Keep {
    texts.opened(7, texts.begin(), bytes.as_bytes())
}

/// Opens it, reads it and closes it.
fn read(texts: &Arc<Texts>, bytes: &str) -> &'static str {
    let keep = open(texts, bytes);
    let answer = name(&keep);
    if let Keep::Fill(reader) | Keep::Known(reader) = keep {
        reader.closes();
    }
    answer
}

fn name(keep: &Keep) -> &'static str {
    match keep {
        Keep::Nothing => "nothing",
        Keep::Fill(_) => "fill",
        Keep::Known(_) => "known",
    }
}

fn notice(texts: &Texts) {
    texts.changes(7);
    texts.told(7);
}

#[test]
fn the_same_text_is_known_and_its_length_believed() {
    let texts = Arc::new(Texts::default());
    assert_eq!(texts.stat(7, true), None);
    assert_eq!([read(&texts, "one"), read(&texts, "one")], ["fill", "known"]);
    assert_eq!((texts.stat(7, true), texts.stat(7, false)), (Some((3, true)), Some((3, false))));
    assert_eq!(texts.believed(), [7]);
}

#[test]
fn another_text_is_kept_only_after_the_kernel_was_told() {
    let texts = Arc::new(Texts::default());
    read(&texts, "one");
    assert_eq!([read(&texts, "three"), read(&texts, "three")], ["nothing", "nothing"]);
    assert_eq!(texts.stat(7, true), Some((5, false)));
    // About to be told is not told.
    texts.changes(7);
    assert_eq!(read(&texts, "three"), "nothing");
    texts.told(7);
    assert_eq!([read(&texts, "three"), read(&texts, "three")], ["fill", "known"]);
    assert_eq!(texts.stat(7, true), Some((5, true)));
}

#[test]
fn a_notice_ends_what_was_believed_and_the_same_text_is_still_known() {
    let texts = Arc::new(Texts::default());
    read(&texts, "one");
    notice(&texts);
    assert_eq!((texts.stat(7, true), texts.believed()), (Some((3, false)), vec![]));
    assert_eq!((read(&texts, "one"), texts.stat(7, true)), ("known", Some((3, true))));
}

#[test]
fn as_long_as_one_reads_nobody_gets_other_pages_or_another_length() {
    let texts = Arc::new(Texts::default());
    let first = open(&texts, "one");
    notice(&texts);
    assert_eq!([read(&texts, "three"), read(&texts, "one")], ["nothing", "nothing"]);
    assert_eq!(texts.stat(7, true), Some((3, false)));
    drop(first);
    assert_eq!(texts.stat(7, true), Some((3, false)), "the newest rendering was of this length");
    assert_eq!([read(&texts, "three"), read(&texts, "three")], ["fill", "known"]);
}

#[test]
fn what_was_overtaken_while_it_was_rendered_is_not_kept() {
    let texts = Arc::new(Texts::default());
    let begun = texts.begin();
    notice(&texts);
    assert!(matches!(texts.opened(7, begun, b"one"), Keep::Nothing), "of a text that was not known");
    assert_eq!(read(&texts, "one"), "fill");
    let begun = texts.begin();
    notice(&texts);
    assert!(matches!(texts.opened(7, begun, b"one"), Keep::Nothing), "of one that was");
    assert_eq!(read(&texts, "one"), "known");
    // What changes elsewhere is nothing to one that is known.
    let begun = texts.begin();
    texts.changes(8);
    assert!(matches!(texts.opened(7, begun, b"one"), Keep::Known(_)));
}

#[test]
fn what_no_file_was_closed_of_is_not_known_and_an_answer_that_nobody_took_is_no_reader() {
    let texts = Arc::new(Texts::default());
    drop(open(&texts, "one"));
    assert_eq!(name(&open(&texts, "one")), "fill");
    notice(&texts);
    assert_eq!(read(&texts, "three"), "fill");
}

#[test]
fn what_the_kernel_forgot_begins_anew_when_the_last_file_is_closed() {
    let texts = Arc::new(Texts::default());
    read(&texts, "one");
    texts.forget(7);
    assert_eq!(texts.stat(7, true), None);
    let first = open(&texts, "one");
    texts.forget(7);
    assert_eq!(texts.lock().known.len(), 1);
    drop(first);
    assert_eq!(texts.lock().known.len(), 0);
}
