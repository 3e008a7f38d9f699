//! The repeat window's newest entries, and the ends of the lines that backfills have sent last, as they are stored: in the
//! order of their commits, which costs a page at a commit. Now and then they are sorted into their tables.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::ends;
use crate::offsets::{LogId, Origin, SiteId, Span};
use crate::visitor::repeats::{Kept, Key, Touch};

/// Bytes of an entry: its key and six numbers.
pub(super) const ENTRY: usize = 16 + 6 * 8;
/// Bytes before a range's ends: its number, and how many bytes they are.
const HEADER: usize = 8 + 4;

/// Ends of lines by their range's number.
pub(super) type Sent = HashMap<i64, Vec<u64>>;

/// How many bytes there are.
pub(super) fn size(db: &Connection) -> rusqlite::Result<usize> {
    let sql = "SELECT coalesce(sum(length(touches) + coalesce(length(sent), 0)), 0) FROM recent";
    db.query_row(sql, [], |row| row.get(0)).map(|bytes: i64| usize::try_from(bytes).unwrap_or(0))
}

/// Stores entries and ends as the newest, and says how many bytes that were.
pub(super) fn append(db: &Connection, touches: &[Touch], sent: &Sent) -> rusqlite::Result<usize> {
    if touches.is_empty() && sent.is_empty() {
        return Ok(0);
    }
    let mut bytes = Vec::with_capacity(touches.len() * ENTRY);
    for touch in touches {
        bytes.extend_from_slice(&touch.key.0);
        for number in numbers(touch) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    let mut coded = Vec::new();
    for (range, ends) in sent {
        let ends = ends::encode(ends.clone());
        coded.extend_from_slice(&range.to_le_bytes());
        coded.extend_from_slice(&u32::try_from(ends.len()).unwrap_or(u32::MAX).to_le_bytes());
        coded.extend_from_slice(&ends);
    }
    let size = bytes.len() + coded.len();
    db.prepare_cached("INSERT INTO recent (touches, sent) VALUES (?1, ?2)")?.execute([bytes, coded])?;
    Ok(size)
}

/// Reads the ends.
pub(super) fn sent(db: &Connection) -> rusqlite::Result<Sent> {
    let mut sent = Sent::new();
    let mut query = db.prepare("SELECT sent FROM recent")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        // Rows of before there were any have none.
        let mut rest = row.get_ref(0)?.as_blob().unwrap_or_default();
        while let Some((header, after)) = rest.split_first_chunk::<HEADER>() {
            let (range, len) = header.split_at(8);
            let range = i64::from_le_bytes(range.try_into().unwrap_or_default());
            let len = u32::from_le_bytes(len.try_into().unwrap_or_default()) as usize;
            let ends = after.get(..len).unwrap_or(after);
            sent.entry(range).or_default().extend(ends::decode(ends));
            rest = &after[ends.len()..];
        }
    }
    Ok(sent)
}

/// Reads the entries, the oldest first.
pub(super) fn read(db: &Connection, mut take: impl FnMut(Touch)) -> rusqlite::Result<()> {
    let mut query = db.prepare("SELECT touches FROM recent ORDER BY rowid")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        // What isn't this program's writing is left out, and goes when the rest is sorted in.
        row.get_ref(0)?.as_blob().unwrap_or_default().as_chunks().0.iter().for_each(|entry| take(decode(entry)));
    }
    Ok(())
}

/// Sorts all into their tables, and says how many entries that were; `used` is the window's newest number.
pub(super) fn sort_in(db: &Connection, used: &mut i64) -> rusqlite::Result<i64> {
    let mut touches = Vec::new();
    read(db, |touch| {
        *used += 1;
        touches.push((touch, *used));
    })?;
    touches.sort_unstable_by_key(|(touch, used)| (touch.key.0, *used));
    let mut keep = db.prepare_cached(
        "INSERT OR REPLACE INTO kept (key, first, last, site, log, line_start, line_end, used) VALUES (?1,?2,?3,?4,?5,?6,?7,?8)",
    )?;
    for (index, (touch, used)) in touches.iter().enumerate() {
        // Only the newest of a key stays.
        if touches.get(index + 1).is_none_or(|(next, _)| next.key != touch.key) {
            let [first, last, site, log, start, end] = numbers(touch);
            keep.execute(params![&touch.key.0[..], first, last, site, log, start, end, used])?;
        }
    }
    let mut send = db.prepare_cached("INSERT INTO sent (range, ends) VALUES (?1, ?2)")?;
    for (range, ends) in sent(db)? {
        send.execute(params![range, ends::encode(ends)])?;
    }
    db.execute("DELETE FROM recent", [])?;
    Ok(touches.len() as i64)
}

fn numbers(touch: &Touch) -> [i64; 6] {
    let Kept { first, last, origin: Origin { site, log, line } } = &touch.kept;
    let int = |value| i64::try_from(value).unwrap_or(i64::MAX);
    [first.as_microsecond(), last.as_microsecond(), site.0, log.0, int(line.start), int(line.end)]
}

fn decode(entry: &[u8; ENTRY]) -> Touch {
    let (key, rest) = entry.split_at(16);
    let mut numbers = [0; 6];
    for (number, bytes) in numbers.iter_mut().zip(rest.as_chunks().0) {
        *number = i64::from_le_bytes(*bytes);
    }
    let [first, last, site, log, start, end] = numbers;
    let time = |at| Timestamp::from_microsecond(at).unwrap_or_default();
    let uint = |value| u64::try_from(value).unwrap_or(0);
    Touch {
        key: Key(key.try_into().unwrap_or_default()),
        kept: Kept {
            first: time(first),
            last: time(last),
            origin: Origin { site: SiteId(site), log: LogId(log), line: Span { start: uint(start), end: uint(end) } },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(key: u8, at: u64) -> Touch {
        let time = Timestamp::from_microsecond(1_790_000_000_000_000 + at as i64).unwrap();
        let origin = Origin { site: SiteId(1), log: LogId(2), line: Span { start: at, end: at + 10 } };
        Touch { key: Key([key; 16]), kept: Kept { first: time, last: time, origin } }
    }

    #[test]
    fn entries_come_back_and_the_newest_of_a_key_is_sorted_in() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(include_str!("schema.sql")).unwrap();
        let stored = [touch(3, 10), touch(1, 20), touch(3, 30), touch(2, 40)];
        let none = Sent::new();
        append(&db, &stored[..1], &Sent::from([(7, vec![300, 200]), (8, vec![5])])).unwrap();
        append(&db, &stored[1..], &none).unwrap();
        append(&db, &[], &Sent::from([(7, vec![400])])).unwrap();
        append(&db, &[], &none).unwrap();
        db.execute("INSERT INTO recent (touches) VALUES (x'')", []).unwrap();
        assert_eq!(sent(&db).unwrap(), Sent::from([(7, vec![200, 300, 400]), (8, vec![5])]));
        let mut got = Vec::new();
        read(&db, |touch| got.push(touch)).unwrap();
        assert_eq!(got, stored);
        assert_eq!(size(&db).unwrap(), 4 * ENTRY + 3 * HEADER + 6);
        let mut used = 7;
        assert_eq!((sort_in(&db, &mut used).unwrap(), used, size(&db).unwrap()), (4, 11, 0));
        let mut query = db.prepare("SELECT key, line_start, used FROM kept ORDER BY used").unwrap();
        let rows = query.query_map([], |row| Ok((row.get::<_, [u8; 16]>(0)?[0], row.get(1)?, row.get(2)?))).unwrap();
        let rows: Vec<(u8, i64, i64)> = rows.map(Result::unwrap).collect();
        assert_eq!(rows, [(1, 20, 9), (3, 30, 10), (2, 40, 11)]);
        assert_eq!(sent(&db).unwrap(), none);
        let mut query = db.prepare("SELECT range, ends FROM sent ORDER BY range").unwrap();
        let rows = query.query_map([], |row| Ok((row.get(0)?, ends::decode(&row.get::<_, Vec<u8>>(1)?)))).unwrap();
        let rows: Vec<(i64, Vec<u64>)> = rows.map(Result::unwrap).collect();
        assert_eq!(rows, [(7, vec![200, 300, 400]), (8, vec![5])]);
    }
}
