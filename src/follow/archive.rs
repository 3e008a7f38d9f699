//! A log's bytes, whether they lie in the file as they are or are compressed (gzip, zstd, bzip2, xz). Content decides
//! which, not the name.
//!
//! In: an open file. Out: [`Content`], which is read at offsets of the *decompressed* log, so that identity, coverage
//! and checkpoints mean the same bytes whatever the log is packed in. Archives are read forwards; a step back further
//! than what is kept begins anew.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use flate2::bufread::GzDecoder;

use super::file::Stamp;

/// Bytes read from the disk at a time.
const COMPRESSED: usize = 128 * 1024;
/// Bytes decompressed at a time.
const STEP: usize = 256 * 1024;
/// Decompressed bytes kept at least behind the place of reading: an unfinished line is read again with what follows it.
const KEEP: usize = 1024 * 1024;
/// Bytes of a file's beginning that tell how it is packed.
const MAGIC: usize = 512;
/// Memory that unpacking may take, which the archive asks for: what `xz -9` and `zstd --long` write needs half of it, and what
/// was made to need more would have the program killed.
const MEMORY: u64 = 1 << MEMORY_LOG;
const MEMORY_LOG: u32 = 27;
/// The length of what isn't known yet: beyond any file.
pub const UNKNOWN: u64 = u64::MAX >> 1;

/// How a log is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// RFC 1952, also of many members.
    Gzip,
    /// RFC 8878, also of many frames.
    Zstd,
    /// bzip2, also of many streams.
    Bzip2,
    /// xz, also of many streams.
    Xz,
}

impl Packing {
    /// Tells it by a file's first 512 bytes; `None`: not packed in any way that is known.
    pub fn of(first: &[u8]) -> Option<Packing> {
        // A log's line begins with none of these: servers write such bytes as escapes.
        let by_magic =
            [(&b"\x1f\x8b"[..], Packing::Gzip), (b"\x28\xb5\x2f\xfd", Packing::Zstd), (b"\xfd7zXZ\0", Packing::Xz)];
        let packing = by_magic.into_iter().find(|(magic, _)| first.starts_with(magic)).map(|(_, packing)| packing);
        packing.or_else(|| is_bzip2(first).then_some(Packing::Bzip2))
    }

    fn decoder<'r>(self, packed: impl Read + Send + 'r) -> io::Result<Box<dyn Read + Send + 'r>> {
        let packed = BufReader::with_capacity(COMPRESSED, packed);
        Ok(match self {
            Packing::Gzip => Box::new(Members { member: Some(GzDecoder::new(packed)) }),
            Packing::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(packed)?;
                decoder.window_log_max(MEMORY_LOG)?;
                Box::new(decoder)
            }
            Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
            Packing::Xz => {
                use liblzma::stream::{CONCATENATED, Stream};
                let stream = Stream::new_stream_decoder(MEMORY, CONCATENATED)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
            }
        })
    }
}

/// Whether a file begins as bzip2 does: with letters and digits alone, which a client may put at a line's beginning where the
/// format has its header there. What is packed has other bytes behind them; no line has.
fn is_bzip2(first: &[u8]) -> bool {
    let Some([b'1'..=b'9', rest @ ..]) = first.strip_prefix(b"BZh") else { return false };
    // The beginning of a block, or the end where there is none.
    let is_begun = [b"1AY&SY", b"\x17rE8P\x90"].iter().any(|magic| rest.starts_with(*magic));
    is_begun && rest.iter().take(MAGIC).any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace())
}

/// The members of a gzip, one after the other. As gzip itself does it, NULs behind the last are let be: they fill up what
/// was written in blocks, to a tape or by a disk after a power cut.
struct Members<R> {
    /// `None`: that was the last.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let filled = member.read(buffer)?;
            if filled > 0 || buffer.is_empty() {
                return Ok(filled);
            }
            let Some(mut packed) = self.member.take().map(GzDecoder::into_inner) else { break };
            loop {
                let rest = packed.fill_buf()?;
                let nuls = rest.iter().take_while(|byte| **byte == 0).count();
                if rest.is_empty() {
                    return Ok(0);
                }
                if nuls < rest.len() {
                    packed.consume(nuls);
                    break;
                }
                packed.consume(nuls);
            }
            self.member = Some(GzDecoder::new(packed));
        }
        Ok(0)
    }
}

/// An open log's bytes.
#[derive(Debug)]
pub enum Content {
    /// As they lie in the file.
    Plain(File),
    /// Decompressed on the way.
    Packed(Box<Packed>),
}

impl Content {
    /// Takes an open file, whose first bytes say what it is.
    ///
    /// # Errors
    /// Those of reading them.
    pub fn of(file: File) -> io::Result<Content> {
        let mut first = [0; MAGIC];
        let filled = super::file::fill(&mut first, |buffer, at| file.read_at(buffer, at))?;
        Ok(match Packing::of(&first[..filled]) {
            Some(packing) => Content::Packed(Box::new(Packed::new(file, packing))),
            None => Content::Plain(file),
        })
    }

    /// The file, if it is a plain one.
    pub fn plain(&self) -> Option<&File> {
        match self {
            Content::Plain(file) => Some(file),
            Content::Packed(_) => None,
        }
    }

    /// Whether the file is an archive.
    pub fn is_packed(&self) -> bool {
        matches!(self, Content::Packed(_))
    }

    /// Bytes of the log; of an archive that hasn't been read to its end, [`UNKNOWN`].
    ///
    /// # Errors
    /// Those of the system.
    pub fn size(&self) -> io::Result<u64> {
        match self {
            Content::Plain(file) => Ok(file.metadata()?.len()),
            Content::Packed(packed) => Ok(packed.stream.borrow().end.unwrap_or(UNKNOWN)),
        }
    }

    /// Its size, and how the file stands now, where that tells whether it is written to; `None`: it doesn't.
    ///
    /// # Errors
    /// Those of the system.
    pub fn stands(&self) -> io::Result<(u64, Option<Stamp>)> {
        match self {
            Content::Plain(file) => {
                let meta = file.metadata()?;
                Ok((meta.len(), Stamp::of(&meta).settled(SystemTime::now())))
            }
            Content::Packed(_) => Ok((self.size()?, None)),
        }
    }

    /// Bytes on the disk, and how many of them have been read (of a plain log: all, for the reader knows better).
    pub fn on_disk(&self) -> (u64, u64) {
        match self {
            Content::Plain(file) => file.metadata().map_or((0, 0), |meta| (meta.len(), meta.len())),
            Content::Packed(packed) => {
                let size = packed.file.metadata().map_or(0, |meta| meta.len());
                (size, (&packed.file).stream_position().unwrap_or(0).min(size))
            }
        }
    }

    /// What is wrong with the archive, once reading has come to the place: what it held until there was given out.
    pub fn damage(&self) -> Option<Damage> {
        match self {
            Content::Plain(_) => None,
            Content::Packed(packed) => packed.stream.borrow().damage.clone(),
        }
    }

    /// Reads some bytes at an offset; 0 is the end.
    ///
    /// # Errors
    /// Those of the system. A damaged archive is no error here: it ends where the damage begins.
    pub fn read_some(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Content::Plain(file) => file.read_at(buffer, offset),
            Content::Packed(packed) => packed.read_some(buffer, offset),
        }
    }
}

/// Where an archive is broken, cut off, or can't be read on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Bytes of the log that could be got out of it.
    pub after: u64,
    /// What the decompressor says.
    pub what: String,
    /// It is whole, as far as can be seen, and asks for more memory than it gets.
    pub needs_memory: bool,
}

impl Damage {
    fn new(after: u64, error: &io::Error) -> Self {
        use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge as TOO_LARGE;
        let xz = error.get_ref().and_then(|inner| inner.downcast_ref::<liblzma::stream::Error>());
        let zstd = error.get_ref().and_then(|inner| inner.downcast_ref::<zstd::Error>());
        let needs_memory =
            xz == Some(&liblzma::stream::Error::MemLimit) || zstd.is_some_and(|error| error.is(TOO_LARGE));
        Self { after, what: error.to_string(), needs_memory }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { after, what, needs_memory } = self;
        if *needs_memory {
            let most = MEMORY >> 20;
            return write!(
                f,
                "unpacking the archive after {after} bytes of the log takes more than {most} MiB of memory ({what}): unpack it, and \
                 give `silktail backfill` what comes out"
            );
        }
        write!(f, "the archive is damaged or cut off after {after} bytes of the log: {what}")
    }
}

/// An archive, read on from where it was read last.
#[derive(Debug)]
pub struct Packed {
    file: File,
    packing: Packing,
    stream: RefCell<Stream>,
}

#[derive(Default)]
struct Stream {
    decoder: Option<Box<dyn Read + Send>>,
    /// Decompressed bytes from offset `start` on.
    window: Vec<u8>,
    start: u64,
    keep: usize,
    end: Option<u64>,
    damage: Option<Damage>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end, damage, .. } = self;
        f.debug_struct("Stream").field("start", start).field("end", end).field("damage", damage).finish_non_exhaustive()
    }
}

impl Packed {
    fn new(file: File, packing: Packing) -> Self {
        Self { file, packing, stream: RefCell::new(Stream { keep: KEEP, ..Stream::default() }) }
    }

    fn read_some(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let stream = &mut *self.stream.borrow_mut();
        stream.keep = stream.keep.max(buffer.len().saturating_mul(2));
        if stream.end.is_some_and(|end| offset >= end) || buffer.is_empty() {
            return Ok(0);
        }
        if stream.decoder.is_none() && stream.end.is_none() || offset < stream.start {
            stream.decoder = Some(self.decoder_from_the_start()?);
            (stream.window, stream.start) = (Vec::new(), 0);
        }
        loop {
            let known = stream.start + stream.window.len() as u64;
            if offset < known {
                let from = usize::try_from(offset - stream.start).unwrap_or(usize::MAX);
                let have = stream.window.get(from..).unwrap_or_default();
                let len = have.len().min(buffer.len());
                buffer[..len].copy_from_slice(&have[..len]);
                return Ok(len);
            }
            if !stream.decode(known)? {
                return Ok(0);
            }
        }
    }

    fn decoder_from_the_start(&self) -> io::Result<Box<dyn Read + Send>> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        self.packing.decoder(file)
    }
}

impl Stream {
    /// Decompresses a little more, from offset `known` on. `false`: that was the end.
    fn decode(&mut self, known: u64) -> io::Result<bool> {
        let Some(decoder) = &mut self.decoder else { return Ok(false) };
        if self.window.len() > 2 * self.keep {
            let surplus = self.window.len() - self.keep;
            self.window.drain(..surplus);
            self.start += surplus as u64;
        }
        let before = self.window.len();
        self.window.resize(before + STEP, 0);
        let more = loop {
            match decoder.read(&mut self.window[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.window.truncate(before + more.as_ref().copied().unwrap_or(0));
        match more {
            Ok(0) => {}
            Ok(_) => return Ok(true),
            // The disk's own errors have a number; the decompressors' haven't.
            Err(error) if error.raw_os_error().is_some() => {
                self.decoder = None;
                return Err(error);
            }
            Err(error) => self.damage = Some(Damage::new(known, &error)),
        }
        self.end = Some(known);
        self.decoder = None;
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::follow::file::read_at;

    fn log(lines: u32) -> Vec<u8> {
        (0..lines).flat_map(|n| format!("192.0.2.{} line {n} of a log\n", n % 250).into_bytes()).collect()
    }

    /// The same bytes in every packing, each in two members where that exists.
    fn packed(log: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let (one, two) = log.split_at(log.len() / 3);
        let gzip = |bytes: &[u8]| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        };
        let bzip2 = |bytes: &[u8]| {
            let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        };
        let xz = |bytes: &[u8]| {
            let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        };
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        vec![
            ("plain", log.to_vec()),
            ("gzip", [gzip(one), gzip(two)].concat()),
            ("gzip, filled up", [gzip(one), vec![0; 512], gzip(two)].concat()),
            ("zstd", [zstd(one), zstd(two)].concat()),
            ("bzip2", [bzip2(one), bzip2(two)].concat()),
            ("xz", [xz(one), xz(two)].concat()),
        ]
    }

    #[test]
    fn no_client_makes_an_archive_of_a_log() {
        let of_nothing = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best()).finish().unwrap();
        assert_eq!(Packing::of(&of_nothing), Some(Packing::Bzip2), "an archive of nothing");
        let text: Vec<u8> = (0..2_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
        let mut large = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        large.write_all(&text).unwrap();
        assert_eq!(Packing::of(&large.finish().unwrap()), Some(Packing::Bzip2));
        for header in ["BZh9", "BZh91AY&SY", "BZh91AY&SY\t"] {
            let line = format!("{header} - - [10/Nov/2026:10:00:00 +0000] \"GET / HTTP/1.1\" 200 5\r\n");
            assert_eq!(Packing::of(line.repeat(20).as_bytes()), None, "{header}");
        }
    }

    #[test]
    fn nuls_behind_an_archive_are_no_damage() {
        let log = log(1_000);
        let (_, gzip) = packed(&log).remove(1);
        let content = content(&[gzip, vec![0; 300_000]].concat());
        let mut got = vec![0; log.len() + 1];
        let filled = read_at(&content, &mut got, 0).unwrap();
        assert!(got[..filled] == log && content.damage().is_none(), "{:?}", content.damage());
    }

    fn content(bytes: &[u8]) -> Content {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Content::of(file).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// Whatever is read in whatever order, an archive's bytes are the log's.
        #[test]
        fn an_archive_reads_as_the_log_does(reads in proptest::collection::vec((0_usize..4_000_000, 1_usize..600_000), 1..6)) {
            let log = log(110_000);
            for (name, bytes) in packed(&log) {
                let content = content(&bytes);
                for (offset, len) in &reads {
                    let mut buffer = vec![0; *len];
                    let filled = read_at(&content, &mut buffer, *offset as u64).unwrap();
                    let want = log.get(*offset..(offset + len).min(log.len())).unwrap_or_default();
                    prop_assert_eq!(&buffer[..filled], want, "{} at {}", name, offset);
                }
            }
        }
    }

    #[test]
    fn a_cut_archive_gives_what_it_holds_and_says_where_it_ends() {
        let log = log(20_000);
        for (name, bytes) in packed(&log).into_iter().skip(1) {
            let whole = content(&bytes);
            let mut buffer = vec![0; log.len() + 1];
            assert_eq!(read_at(&whole, &mut buffer, 0).unwrap(), log.len(), "{name}");
            assert_eq!((whole.damage(), whole.size().unwrap()), (None, log.len() as u64), "{name}");

            let cut = content(&bytes[..bytes.len() - 100]);
            let filled = read_at(&cut, &mut buffer, 0).unwrap();
            assert!(filled <= log.len() && buffer[..filled] == log[..filled], "{name}");
            let damage = cut.damage().unwrap_or_else(|| panic!("{name}: no damage"));
            assert_eq!(damage.after, filled as u64, "{name}");
        }
    }

    #[test]
    fn an_archive_has_so_much_memory_and_what_needs_more_is_told_from_a_damaged_one() {
        use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
        let log = log(1_000);
        let xz = |preset: u32, dictionary: Option<u32>| {
            let mut options = LzmaOptions::new_preset(preset).unwrap();
            if let Some(bytes) = dictionary {
                options.dict_size(bytes);
            }
            let stream = Stream::new_stream_encoder(Filters::new().lzma2(&options), Check::Crc64).unwrap();
            let mut out = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
            out.write_all(&log).unwrap();
            out.finish().unwrap()
        };
        let zstd = |window: u32| {
            let mut out = zstd::Encoder::new(Vec::new(), 1).unwrap();
            out.long_distance_matching(true).unwrap();
            out.window_log(window).unwrap();
            out.write_all(&log).unwrap();
            out.finish().unwrap()
        };
        let extreme = 1 << 31;
        for (name, bytes, fits) in [
            ("xz -9", xz(9, None), true),
            ("xz -9e", xz(9 | extreme, None), true),
            ("xz, a larger dictionary", xz(0, Some(160 << 20)), false),
            ("zstd --long", zstd(27), true),
            ("zstd --long=28", zstd(28), false),
        ] {
            let content = content(&bytes);
            let mut got = vec![0; log.len() + 1];
            let filled = read_at(&content, &mut got, 0).unwrap();
            assert_eq!(got[..filled] == log, fits, "{name}");
            let said = content.damage().map(|damage| damage.to_string());
            assert_eq!(said.is_none(), fits, "{name}: {said:?}");
            assert!(fits || said.as_ref().is_some_and(|said| said.contains("unpack it")), "{name}: {said:?}");
        }
    }
}
