//! Protobuf's binary form: every field is compared with the schema before the message is taken.
//!
//! A decoder keeps unknown fields for others to see, takes the last of repeated scalars and cuts numbers that are too wide.
//! In a config each of these is a mistake, so the bytes are walked once for faults.

use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost::{Message, Name};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::check::join;
use super::error::{Fault, SpecErrors};
use super::raw;
use super::read::MAX_BYTES;

/// Reads a message and checks it; `file_name` is only quoted in faults.
pub(super) fn check_protobuf<T: Message + Name + Default, S>(
    bytes: &[u8],
    file_name: &str,
    check: impl FnOnce(&T) -> Result<S, SpecErrors>,
) -> Result<S, SpecErrors> {
    read_protobuf(bytes, file_name).and_then(|raw| {
        check(&raw).map_err(|errors| errors.locate(file_name, &super::read::Positions::default()))
    })
}

/// Reads a message of `schema/` in protobuf's binary form; `file_name` is only quoted in faults.
///
/// # Errors
/// Every unknown or repeated field, wrong wire type, number too wide and string that is not UTF-8, by path; where the
/// bytes are malformed the byte, and nothing after it. The writer of the message is at fault.
pub fn read_protobuf<T: Message + Name + Default>(bytes: &[u8], file_name: &str) -> Result<T, SpecErrors> {
    let descriptor = raw::descriptor_of::<T>(file_name)?;
    if bytes.len() > MAX_BYTES {
        return Err(SpecErrors::one(
            file_name,
            None,
            format!("the message is longer than {MAX_BYTES} bytes"),
        ));
    }
    let mut walk = Walk { file: file_name, whole_len: bytes.len(), faults: Vec::new() };
    // What is malformed has been noted.
    let _ = walk.message(bytes, 0, &descriptor, "", 0);
    SpecErrors::or(walk.faults, ())?;
    T::decode(bytes).map_err(|error| SpecErrors::one(file_name, None, format!("not a {}: {error}", T::NAME)))
}

struct Walk<'a> {
    file: &'a str,
    whole_len: usize,
    faults: Vec<Fault>,
}

/// The bytes are malformed, which has been noted; what comes after cannot be read.
struct Malformed;

impl Walk<'_> {
    /// A message whose first byte is at `start` of the whole.
    fn message(
        &mut self,
        bytes: &[u8],
        start: usize,
        descriptor: &MessageDescriptor,
        path: &str,
        depth: usize,
    ) -> Result<(), Malformed> {
        if depth > MAX_DEPTH {
            return Err(self.malformed(start, path, &format!("nested deeper than {MAX_DEPTH}")));
        }
        let mut rest = bytes;
        let mut counts: Vec<(u32, usize)> = Vec::new();
        while rest.has_remaining() {
            let at = start + bytes.len() - rest.len();
            let Ok((number, wire_type)) = decode_key(&mut rest) else {
                return Err(self.malformed(at, path, "no key of a field"));
            };
            let payload = self.payload(&mut rest, wire_type, at, path)?;
            let Some(field) = descriptor.get_field(number) else {
                self.fault(path, format!("unknown field number {number} of {}", descriptor.name()));
                continue;
            };
            let index = match counts.iter_mut().find(|(other, _)| *other == number) {
                Some((_, count)) => {
                    *count += 1;
                    *count
                }
                None => {
                    counts.push((number, 0));
                    0
                }
            };
            let field_path = join(path, field.name());
            if index > 0 && !field.is_list() {
                self.fault(&field_path, "written twice");
                continue;
            }
            if let Some(oneof) = field.containing_oneof()
                && oneof
                    .fields()
                    .any(|other| other != field && counts.iter().any(|(seen, _)| *seen == other.number()))
            {
                self.fault(&field_path, format!("only one field of `{}` may be written", oneof.name()));
            }
            let path = if field.is_list() { format!("{field_path}[{index}]") } else { field_path };
            self.field(payload, &field, &path, start + bytes.len() - rest.len(), depth)?;
        }
        Ok(())
    }

    /// What follows a key, taken off the front of `rest`.
    fn payload<'b>(
        &mut self,
        rest: &mut &'b [u8],
        wire_type: WireType,
        at: usize,
        path: &str,
    ) -> Result<Payload<'b>, Malformed> {
        let mut take = |count: u64| {
            let count = usize::try_from(count).ok()?;
            let (taken, after) = rest.split_at_checked(count)?;
            *rest = after;
            Some(taken)
        };
        let payload = match wire_type {
            WireType::Varint => decode_varint(rest).ok().map(Payload::Varint),
            WireType::SixtyFourBit => take(8).map(|_| Payload::Fixed64),
            WireType::ThirtyTwoBit => take(4).map(|_| Payload::Fixed32),
            WireType::LengthDelimited => match decode_varint(rest) {
                Ok(count) => {
                    let count = usize::try_from(count).ok();
                    count.and_then(|count| rest.split_at_checked(count)).map(|(taken, after)| {
                        *rest = after;
                        Payload::Bytes(taken)
                    })
                }
                Err(_) => None,
            },
            WireType::StartGroup | WireType::EndGroup => None,
        };
        payload.ok_or_else(|| self.malformed(at, path, "a field that is cut off"))
    }

    /// `end` is where the payload ends in the whole.
    fn field(
        &mut self,
        payload: Payload<'_>,
        field: &FieldDescriptor,
        path: &str,
        end: usize,
        depth: usize,
    ) -> Result<(), Malformed> {
        let fault = match (field.kind(), payload) {
            (Kind::Message(descriptor), Payload::Bytes(bytes)) => {
                return self.message(bytes, end - bytes.len(), &descriptor, path, depth + 1);
            }
            (Kind::String, Payload::Bytes(bytes)) if std::str::from_utf8(bytes).is_err() => "not UTF-8",
            (Kind::String | Kind::Bytes, Payload::Bytes(_)) => return Ok(()),
            (Kind::Double | Kind::Fixed64 | Kind::Sfixed64, Payload::Fixed64) => return Ok(()),
            (Kind::Float | Kind::Fixed32 | Kind::Sfixed32, Payload::Fixed32) => return Ok(()),
            (kind, Payload::Varint(number)) => match varint(&kind, number) {
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            },
            // Numbers of a list in one piece.
            (kind, Payload::Bytes(mut packed)) if field.is_list() && varint(&kind, 0).is_ok() => {
                let mut found = Ok(());
                while packed.has_remaining() && found.is_ok() {
                    found = decode_varint(&mut packed)
                        .map_err(|_| "cut off")
                        .and_then(|number| varint(&kind, number));
                }
                match found {
                    Ok(()) => return Ok(()),
                    Err(fault) => fault,
                }
            }
            _ => "of another type",
        };
        self.fault(path, fault);
        Ok(())
    }

    fn malformed(&mut self, at: usize, path: &str, what: &str) -> Malformed {
        self.fault(path, format!("byte {at} of {}: {what}", self.whole_len));
        Malformed
    }

    fn fault(&mut self, path: &str, message: impl Into<String>) {
        let (file, path) = (self.file.to_owned(), path.to_owned());
        self.faults.push(Fault { file, line: None, column: None, path, message: message.into() });
    }
}

enum Payload<'a> {
    Varint(u64),
    Fixed64,
    Fixed32,
    Bytes(&'a [u8]),
}

/// Whether the number is one of the kind; a negative one of 32 bits is written in 64.
fn varint(kind: &Kind, number: u64) -> Result<(), &'static str> {
    let fits = match kind {
        Kind::Bool => number <= 1,
        Kind::Int32 | Kind::Enum(_) => i32::try_from(number.cast_signed()).is_ok(),
        Kind::Uint32 | Kind::Sint32 => u32::try_from(number).is_ok(),
        Kind::Int64 | Kind::Uint64 | Kind::Sint64 => true,
        _ => return Err("of another type"),
    };
    if fits { Ok(()) } else { Err("a number too wide for its field") }
}

/// As deep as a YAML text may be.
const MAX_DEPTH: usize = 16;
