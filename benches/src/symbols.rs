//! Which function an address of a running process belongs to.

use std::collections::HashMap;
use std::fs;
use std::hash::BuildHasherDefault;
use std::io;

use addr2line::Loader;
use object::{Object, ObjectSegment, ObjectSymbol};

/// How often each address was seen.
pub type Addresses = HashMap<u64, u64, Hasher>;

/// Addresses are spread well enough by one multiplication.
pub type Hasher = BuildHasherDefault<AddressHasher>;

/// See [`Hasher`].
#[derive(Default)]
pub struct AddressHasher(u64);

impl std::hash::Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

/// What addresses are gathered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// The function that was compiled, with all that was inlined into it.
    Function,
    /// The innermost inlined function.
    Inline,
    /// The line of the source.
    Line,
    /// The instruction, as a disassembler numbers it.
    Address,
}

/// The executable mappings of a process, read while it lives.
pub struct Symbols {
    mappings: Vec<Mapping>,
}

struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    path: String,
    file: Option<File>,
}

struct File {
    loader: Loader,
    /// (offset in the file, address, size) of the loaded segments.
    segments: Vec<(u64, u64, u64)>,
    /// Sorted by address.
    symbols: Vec<Symbol>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Symbol {
    address: u64,
    /// 0 where the file does not say.
    size: u64,
    name: String,
}

impl Symbols {
    /// Of all `pids`; the same file at the same place in several of them counts once.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn read(pids: &[libc::pid_t]) -> io::Result<Self> {
        let mut mappings: Vec<Mapping> = Vec::new();
        for pid in pids {
            let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
            for mapping in maps.lines().filter_map(parse_mapping) {
                if !mappings.iter().any(|known| known.start == mapping.start && known.path == mapping.path) {
                    mappings.push(mapping);
                }
            }
        }
        for mapping in &mut mappings {
            mapping.file = File::read(&mapping.path);
        }
        Ok(Symbols { mappings })
    }

    /// Gathers counts by what their addresses belong to, the largest first; only those of compiled functions whose name
    /// contains `within`.
    pub fn gather(&self, at: &Addresses, by: By, within: &str) -> Vec<(String, u64)> {
        let mut sums: HashMap<String, u64> = HashMap::new();
        for (address, count) in at {
            if !within.is_empty() && !self.name(*address, By::Function).contains(within) {
                continue;
            }
            *sums.entry(self.name(*address, by)).or_default() += count;
        }
        let mut sums: Vec<(String, u64)> = sums.into_iter().collect();
        sums.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        sums
    }

    /// How often each function of the C library named here was entered.
    pub fn entries(&self, at: &Addresses, names: &[&str]) -> u64 {
        let mut sum = 0;
        for mapping in self.mappings.iter().filter(|mapping| mapping.path.contains("/libc.so")) {
            let Some(file) = &mapping.file else { continue };
            let mut starts: Vec<u64> = file
                .symbols
                .iter()
                .filter(|symbol| names.contains(&symbol.name.as_str()))
                .filter_map(|symbol| mapping.loaded_at(file, symbol.address))
                .collect();
            starts.sort_unstable();
            starts.dedup();
            sum += starts.iter().map(|start| at.get(start).copied().unwrap_or(0)).sum::<u64>();
        }
        sum
    }

    fn name(&self, address: u64, by: By) -> String {
        let Some(mapping) = self.mappings.iter().find(|m| m.start <= address && address < m.end) else {
            return "(no mapping)".to_owned();
        };
        let file_name = mapping.path.rsplit('/').next().unwrap_or_default();
        let Some((file, probe)) =
            mapping.file.as_ref().and_then(|file| Some((file, mapping.probe(file, address)?)))
        else {
            return format!("({file_name})");
        };
        let named = match by {
            By::Function => file.function(probe),
            By::Inline => file.inlined(probe).or_else(|| file.function(probe)),
            By::Line => file.line(probe),
            By::Address => Some(format!("{probe:x}")),
        };
        named.unwrap_or_else(|| format!("({file_name}, no symbol)"))
    }
}

impl Mapping {
    /// The address within the file's own numbering.
    fn probe(&self, file: &File, address: u64) -> Option<u64> {
        let offset = address - self.start + self.offset;
        let (start, at, _) =
            file.segments.iter().find(|(start, _, len)| (*start..start + len).contains(&offset))?;
        Some(offset - start + at)
    }

    /// Where an address of the file's own numbering lies in this mapping.
    fn loaded_at(&self, file: &File, address: u64) -> Option<u64> {
        let (start, at, _) = file.segments.iter().find(|(_, at, len)| (*at..at + len).contains(&address))?;
        let loaded = (address - at + start).checked_sub(self.offset)? + self.start;
        (loaded < self.end).then_some(loaded)
    }
}

fn parse_mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    if !words.next()?.contains('x') {
        return None;
    }
    let offset = u64::from_str_radix(words.next()?, 16).ok()?;
    let path = words.nth(2)?.to_owned();
    let [start, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16));
    Some(Mapping { start: start.ok()?, end: end.ok()?, offset, path, file: None })
}

impl File {
    fn read(path: &str) -> Option<File> {
        let data = fs::read(path).ok()?;
        let object = object::File::parse(&*data).ok()?;
        let segments = object.segments().map(|s| (s.file_range().0, s.address(), s.file_range().1)).collect();
        let mut symbols: Vec<Symbol> = object
            .symbols()
            .chain(object.dynamic_symbols())
            .filter(|symbol| symbol.kind() == object::SymbolKind::Text && symbol.address() != 0)
            .filter_map(|symbol| {
                let name = symbol.name().ok()?.to_owned();
                Some(Symbol { address: symbol.address(), size: symbol.size(), name })
            })
            .collect();
        symbols.sort();
        symbols.dedup();
        Some(File { loader: Loader::new(path).ok()?, segments, symbols })
    }

    fn function(&self, probe: u64) -> Option<String> {
        let after = self.symbols.partition_point(|symbol| symbol.address <= probe);
        let symbol = self.symbols.get(after.checked_sub(1)?)?;
        // What lies behind the end of the last symbol is a function that the file does not name.
        (symbol.size == 0 || probe < symbol.address + symbol.size)
            .then(|| format!("{:#}", rustc_demangle::demangle(&symbol.name)))
    }

    fn inlined(&self, probe: u64) -> Option<String> {
        let frame = self.loader.find_frames(probe).ok()?.next().ok()??;
        let function = frame.function?;
        let name = function.demangle().ok()?;
        // The debug information has the bare name; the file tells which of several it is.
        let name = name.split('<').next().filter(|name| !name.is_empty()).unwrap_or(&name);
        Some(format!("{name}  ({})", tail(frame.location.and_then(|at| at.file).unwrap_or_default())))
    }

    fn line(&self, probe: u64) -> Option<String> {
        let location = self.loader.find_location(probe).ok()??;
        let file = location.file?;
        Some(format!("{}:{}", tail(file), location.line.unwrap_or(0)))
    }
}

/// The last three parts of a path.
fn tail(path: &str) -> &str {
    path.rmatch_indices('/').nth(2).map_or(path, |(at, _)| &path[at + 1..])
}

/// What allocates, in the C library that every peer uses.
pub const ALLOCATORS: &[&str] =
    &["malloc", "calloc", "realloc", "memalign", "posix_memalign", "aligned_alloc", "valloc", "pvalloc"];
