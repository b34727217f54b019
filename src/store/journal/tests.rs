use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::event::{Draft, Event};

/// A folder of its own for one test; removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("threadcast-journal-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Folder(path)
    }

    fn segment(&self, number: u64) -> PathBuf {
        segment_path(&self.0, number)
    }

    /// The numbers of the segments that are there.
    fn segments(&self) -> Vec<u64> {
        let all = fs::read_dir(&self.0).unwrap().map(|one| one.unwrap().file_name());
        let names =
            all.filter_map(|name| name.to_str().unwrap().strip_prefix("events-")?.parse().ok());
        let mut numbers: Vec<u64> = names.collect();
        numbers.sort_unstable();
        numbers
    }

    /// Makes the state say that the machine has been started again since.
    fn restart_machine(&self) {
        let state = State::read(&self.0).unwrap().unwrap();
        State { boot: Some("another".to_owned()), ..state }.write(&self.0).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn id(millis: u64) -> EventId {
    EventId { millis, sequence: 0 }
}

fn event(millis: u64, data: &str) -> Event {
    Event::new(id(millis), Draft::new("topic", None, data).unwrap())
}

/// What a journal held: `gap 7`, `event 8`, `event 9 key`; and the last id.
fn read(
    folder: &Folder,
    sync: JournalSync,
    clock: fn() -> u64,
) -> Result<(Journal, Vec<String>, EventId), JournalError> {
    let mut held = Vec::new();
    let (journal, last) = Journal::open(&folder.0, sync, clock, &mut |entry| {
        held.push(match entry {
            Entry::Gap(id) => format!("gap {}", id.millis),
            Entry::Event(event, None) => format!("event {}", event.id.millis),
            Entry::Event(event, Some(key)) => format!("event {} {key}", event.id.millis),
        });
    })?;
    Ok((journal, held, last))
}

fn open(folder: &Folder) -> (Journal, Vec<String>, EventId) {
    read(folder, JournalSync::Interval, || 100).unwrap()
}

fn append(journal: &mut Journal, millis: &[u64]) {
    let events: Vec<_> = millis.iter().map(|millis| event(*millis, "data")).collect();
    let records: Vec<_> = events.iter().map(|event| Record { event, key: None }).collect();
    journal.append(&records, Some(EventId::default())).unwrap();
}

/// Publishes events of 64 KiB with these keys until there are so many more segments.
fn fill(journal: &mut Journal, key: Option<&str>, first: u64, segments: u64, oldest: u64) -> u64 {
    let until = journal.segment.number + segments;
    let mut millis = first;
    while journal.segment.number < until {
        let event = event(millis, &"x".repeat(1 << 16));
        journal.append(&[Record { event: &event, key }], Some(id(oldest))).unwrap();
        millis += 1;
    }
    millis - 1
}

#[test]
fn what_was_appended_is_read_after_a_clean_end_and_after_a_kill() {
    for sync in [JournalSync::Always, JournalSync::Interval] {
        let folder = Folder::new(&format!("restart-{sync:?}"));
        let (mut journal, held, last) = read(&folder, sync, || 100).unwrap();
        assert_eq!((held, last), (vec!["gap 100".to_owned()], id(100)));
        append(&mut journal, &[101, 102]);
        let with_key = event(103, "data");
        journal.append(&[Record { event: &with_key, key: Some("key") }], None).unwrap();
        journal.close();
        let (mut journal, held, last) = read(&folder, sync, || 0).unwrap();
        let before = ["gap 100", "event 101", "event 102", "event 103 key"];
        assert_eq!((held, last), (before.map(str::to_owned).to_vec(), id(103)));
        append(&mut journal, &[110]);
        journal.kill();
        let (_, held, last) = read(&folder, sync, || 0).unwrap();
        assert_eq!(
            (&held[..4], &held[4..], last),
            (&before.map(str::to_owned)[..], &["event 110".to_owned()][..], id(110))
        );
    }
}

#[test]
fn the_id_before_the_first_event_stays_the_same() {
    let folder = Folder::new("birth");
    open(&folder).0.kill();
    let (journal, held, last) = read(&folder, JournalSync::Always, || 900).unwrap();
    assert_eq!((held, last), (vec!["gap 100".to_owned()], id(100)));
    drop(journal);
    let (_, held, last) = read(&folder, JournalSync::Always, || 900).unwrap();
    assert_eq!((held, last), (vec!["gap 100".to_owned()], id(100)));
}

#[test]
fn a_torn_end_is_cut_off_wherever_it_was_torn() {
    let folder = Folder::new("torn");
    let (mut journal, ..) = open(&folder);
    append(&mut journal, &[101]);
    let start = journal.segment.bytes as usize;
    append(&mut journal, &[102, 103]);
    journal.kill();
    let whole = fs::read(folder.segment(1)).unwrap();
    for end in start..whole.len() {
        fs::write(folder.segment(1), &whole[..end]).unwrap();
        let (mut journal, held, last) = open(&folder);
        assert_eq!(held, ["gap 100", "event 101"], "{end}");
        assert_eq!((last, fs::read(folder.segment(1)).unwrap().len()), (id(101), start));
        // What is written next is read, too.
        append(&mut journal, &[104]);
        journal.kill();
        let (journal, held, _) = open(&folder);
        assert_eq!(held, ["gap 100", "event 101", "event 104"], "{end}");
        journal.kill();
    }
}

#[test]
fn a_segment_without_its_whole_header_is_begun_again() {
    let folder = Folder::new("header");
    for length in 0..HEADER.len() {
        let (mut journal, ..) = open(&folder);
        append(&mut journal, &[1000 + length as u64]);
        let next = journal.segment.number + 1;
        journal.kill();
        fs::write(folder.segment(next), &HEADER[..length]).unwrap();
        let (journal, held, last) = open(&folder);
        assert_eq!((held.len(), last), (length + 2, id(1000 + length as u64)));
        journal.kill();
    }
}

#[test]
fn damage_costs_the_damaged_frame_and_is_a_gap() {
    let folder = Folder::new("damage");
    let (mut journal, ..) = open(&folder);
    append(&mut journal, &[101]);
    let start = journal.segment.bytes as usize;
    append(&mut journal, &[102]);
    let end = journal.segment.bytes as usize;
    append(&mut journal, &[103]);
    append(&mut journal, &[104]);
    journal.kill();
    let whole = fs::read(folder.segment(1)).unwrap();
    for place in start..end {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x40;
        fs::write(folder.segment(1), bytes).unwrap();
        let (journal, held, last) = open(&folder);
        assert_eq!(held, ["gap 100", "event 101", "gap 102", "event 103", "event 104"], "{place}");
        assert_eq!(last, id(104));
        journal.kill();
    }
}

#[test]
fn damage_at_the_end_is_a_gap_and_its_ids_are_not_given_again() {
    let folder = Folder::new("end");
    let (mut journal, ..) = open(&folder);
    append(&mut journal, &[101]);
    append(&mut journal, &[102]);
    journal.kill();
    let mut bytes = fs::read(folder.segment(1)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(folder.segment(1), bytes).unwrap();
    let (journal, held, last) = open(&folder);
    let ceiling = 101 + CEILING_AHEAD_MS;
    assert_eq!(
        (&held[..], last),
        (&["gap 100".into(), "event 101".into(), format!("gap {ceiling}")][..], id(ceiling))
    );
    journal.kill();
}

#[test]
fn a_machine_that_went_down_leaves_a_gap_that_stays() {
    let folder = Folder::new("machine");
    let (mut journal, ..) = open(&folder);
    append(&mut journal, &[101]);
    journal.kill();
    folder.restart_machine();
    let (mut journal, held, last) = open(&folder);
    let gap = 101 + CEILING_AHEAD_MS;
    let expected = ["gap 100".to_owned(), "event 101".to_owned(), format!("gap {gap}")];
    assert_eq!((&held[..], last), (&expected[..], id(gap)));
    append(&mut journal, &[gap + 5]);
    journal.kill();
    let (journal, held, last) = open(&folder);
    assert_eq!(
        (&held[..3], &held[3..], last),
        (&expected[..], &[format!("event {}", gap + 5)][..], id(gap + 5))
    );
    // A clean end loses nothing, whatever the machine does then.
    drop(journal);
    folder.restart_machine();
    assert_eq!(open(&folder).1.len(), 4);
}

#[test]
fn a_journal_that_has_lost_events_since_it_was_closed_has_a_gap() {
    let folder = Folder::new("lost");
    let (mut journal, ..) = open(&folder);
    append(&mut journal, &[101]);
    let end = journal.segment.bytes;
    append(&mut journal, &[102]);
    journal.close();
    let file = File::options().write(true).open(folder.segment(1)).unwrap();
    file.set_len(end).unwrap();
    let (_, held, last) = open(&folder);
    assert_eq!((held.len(), last), (3, id(101 + CEILING_AHEAD_MS)));
    fs::remove_file(folder.0.join("state")).unwrap();
    let (_, held, last) = open(&folder);
    assert_eq!(held.len(), 4, "{held:?}");
    assert!(last > id(101 + CEILING_AHEAD_MS));
}

#[test]
fn ids_rise_though_the_machine_went_down_and_the_clock_was_set_back() {
    static CLOCK: AtomicU64 = AtomicU64::new(1_000_000);
    let folder = Folder::new("clock");
    let clock = || CLOCK.load(Ordering::Relaxed);
    let (mut journal, _, mut last) = read(&folder, JournalSync::Interval, clock).unwrap();
    for step in 0..200 {
        // As the store does: the clock's, or the one after the last.
        let millis = clock().max(last.millis + 1);
        append(&mut journal, &[millis]);
        last = id(millis);
        let known = State::read(&folder.0).unwrap().unwrap();
        assert!(known.ceiling > millis, "{millis} is given, the disk knows of {}", known.ceiling);
        CLOCK.store([5, 2_000_000 + step * 7_000][step as usize % 2], Ordering::Relaxed);
        if step % 20 == 0 {
            journal.kill();
            // All that was not synced is gone, which here is all.
            fs::remove_file(folder.segment(1)).unwrap();
            folder.restart_machine();
            let (opened, held, first) = read(&folder, JournalSync::Interval, clock).unwrap();
            assert!(first > last, "{first} after {last}");
            assert_eq!(held, [format!("gap {}", first.millis)]);
            (journal, last) = (opened, first);
        }
    }
}

#[test]
fn segments_that_are_not_needed_are_deleted() {
    let folder = Folder::new("delete");
    let (mut journal, ..) = open(&folder);
    // The second segment begins with the event `second`.
    let second = fill(&mut journal, None, 101, 1, 0);
    let last = fill(&mut journal, None, second + 1, 2, second - 1);
    assert_eq!(folder.segments(), [1, 2, 3, 4], "the first one ends with what is needed");
    append_one(&mut journal, last + 1, second);
    assert_eq!(folder.segments(), [2, 3, 4]);
    let length = |number| fs::metadata(folder.segment(number)).unwrap().len();
    assert_eq!(journal.bytes(), length(2) + length(3) + length(4));
    journal.kill();
    let (journal, held, _) = open(&folder);
    assert_eq!(held[..2], [format!("gap {}", second - 1), format!("event {second}")]);
    assert_eq!(held.len() as u64, last + 1 - second + 2);
    drop(journal);
    // Nothing is needed: all but the last one.
    let (mut journal, ..) = open(&folder);
    append_one(&mut journal, last + 2, last + 2);
    assert_eq!(folder.segments(), [4]);
}

/// Appends an event when those before `oldest` are not needed any more.
fn append_one(journal: &mut Journal, millis: u64, oldest: u64) {
    let event = event(millis, "data");
    journal.append(&[Record { event: &event, key: None }], Some(id(oldest))).unwrap();
}

#[test]
fn a_segment_is_kept_for_its_keys_but_not_without_limit() {
    let folder = Folder::new("keys");
    let (mut journal, ..) = open(&folder);
    let last = fill(&mut journal, Some("key"), 101, 1, u64::MAX);
    append_one(&mut journal, last + KEY_LIFETIME_MS - 2, u64::MAX);
    assert_eq!(folder.segments(), [1, 2]);
    journal.kill();
    let (mut journal, held, _) = open(&folder);
    assert_eq!(held[1], "event 101 key");
    append_one(&mut journal, last + KEY_LIFETIME_MS + 1, u64::MAX);
    assert_eq!(folder.segments(), [2]);
    // With all of them needed, as many as there is room for.
    fill(&mut journal, Some("key"), 1_000_000, 20, 0);
    let bytes = journal.bytes();
    assert!((MAX_BYTES..=MAX_BYTES + 2 * SEGMENT_BYTES).contains(&bytes), "{bytes}");
    assert_eq!(folder.segments().len(), 17);
}

#[test]
fn a_second_journal_in_the_folder_is_refused_until_the_first_one_ends() {
    let folder = Folder::new("lock");
    let (mut journal, ..) = open(&folder);
    let error = read(&folder, JournalSync::Always, || 100).map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, JournalError::InUse(_)), "{text}");
    assert!(text.contains(folder.0.to_str().unwrap()) && !text.contains('\n'), "{text}");
    journal.close();
    open(&folder);
    let error = journal.append(&[Record { event: &event(200, "data"), key: None }], None);
    assert_eq!(error, Err(PublishError::Stopped));
}

#[test]
fn what_cannot_be_opened_is_named_in_one_line() {
    let folder = Folder::new("refused");
    drop(open(&folder));
    fs::write(folder.segment(2), "threadcast journal 999\nand more").unwrap();
    let error = read(&folder, JournalSync::Always, || 100).map(|_| ()).unwrap_err();
    assert!(matches!(error, JournalError::Version(_)), "{error}");
    // A file in the place of a folder.
    let file = Folder(folder.segment(1).join("below"));
    let error = read(&file, JournalSync::Always, || 100).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("below") && !error.contains('\n'), "{error}");
}

#[test]
fn files_that_are_no_segments_are_left_alone() {
    let folder = Folder::new("strangers");
    drop(open(&folder));
    fs::write(folder.0.join("notes.txt"), "mine").unwrap();
    fs::write(folder.0.join("events-old"), "mine").unwrap();
    // A copy of a segment: its events are not read twice.
    let (mut journal, ..) = open(&folder);
    append(&mut journal, &[101, 102]);
    journal.close();
    fs::copy(folder.segment(1), folder.segment(2)).unwrap();
    let (_, held, last) = open(&folder);
    assert_eq!(
        (held, last),
        (["gap 100", "event 101", "event 102"].map(str::to_owned).to_vec(), id(102))
    );
    assert_eq!(fs::read(folder.0.join("events-old")).unwrap(), b"mine");
}

#[test]
fn an_append_that_fails_leaves_nothing_and_the_next_one_tries_again() {
    let folder = Folder::new("full");
    let (mut journal, ..) = open(&folder);
    append(&mut journal, &[101]);
    let writable = Arc::clone(&journal.file);
    // Neither written nor cut off: the journal refuses until it can be.
    journal.file = Arc::new(File::open(folder.segment(1)).unwrap());
    for millis in [102, 103] {
        let event = event(millis, "data");
        let error = journal.append(&[Record { event: &event, key: None }], None).unwrap_err();
        assert!(matches!(error, PublishError::Unavailable(_)), "{error}");
        assert!(error.to_string().contains(folder.0.to_str().unwrap()), "{error}");
        assert!(journal.is_cut_needed);
    }
    writable.write_all_at(b"half a frame", journal.segment.bytes).unwrap();
    journal.file = writable;
    append(&mut journal, &[104]);
    journal.kill();
    assert_eq!(open(&folder).1, ["gap 100", "event 101", "event 104"]);
}

#[test]
fn the_state_is_on_the_disk_before_an_id_above_its_ceiling_is_given() {
    let folder = Folder::new("ceiling");
    let (mut journal, ..) = open(&folder);
    // Where the state is to be written there is a folder: that fails, as on a full disk.
    fs::create_dir(folder.0.join("state.new")).unwrap();
    let event = event(101, "data");
    let error = journal.append(&[Record { event: &event, key: None }], None).unwrap_err();
    assert!(matches!(error, PublishError::Unavailable(_)), "{error}");
    fs::remove_dir(folder.0.join("state.new")).unwrap();
    append(&mut journal, &[101]);
    journal.kill();
    assert_eq!(open(&folder).1, ["gap 100", "event 101"]);
}

#[test]
fn what_is_appended_is_synced_before_the_answer_or_soon_after() {
    let folder = Folder::new("sync");
    // A file that can be written, but not synced: fsync(2) returns `EINVAL`.
    let unsyncable = || Arc::new(File::options().write(true).open("/dev/null").unwrap());
    let event = event(101, "data");
    let records = [Record { event: &event, key: None }];
    let (mut journal, ..) = read(&folder, JournalSync::Always, || 100).unwrap();
    journal.file = unsyncable();
    let error = journal.append(&records, None).unwrap_err();
    assert!(matches!(error, PublishError::Unavailable(_)), "{error}");
    journal.kill();
    let (mut journal, ..) = read(&folder, JournalSync::Interval, || 100).unwrap();
    journal.file = unsyncable();
    journal.append(&records, None).unwrap();
    let is_found = (0..2_000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        journal.problem().is_some()
    });
    assert!(is_found, "not synced within 20 s");
    journal.kill();
}
