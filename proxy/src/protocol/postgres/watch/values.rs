//! Binary values as PostgreSQL would write them (its `*send` and `*out` functions; chapter 55.2.3, "the binary representation").
//!
//! What always holds: whatever the bytes are, this ends, allocates in proportion to them, and either understands all of them or
//! says that it does not.

use super::super::fields::Fields;
use jiff::SignedDuration;
use std::{
    fmt::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr},
};
use tokio_postgres::types::{Kind, Type};

/// The built-in type with this OID.
pub(super) fn known(oid: u32) -> Option<Type> {
    Type::from_oid(oid)
}

/// What SQL calls it.
pub(super) fn name(kind: &Type) -> String {
    match kind.kind() {
        _ if *kind == Type::CHAR => "\"char\"".to_owned(),
        Kind::Array(of) => name(of) + "[]",
        _ => kind.name().to_owned(),
    }
}

/// Whether its binary form is its text.
pub(super) fn is_text(kind: &Type) -> bool {
    matches!(
        *kind,
        Type::TEXT
            | Type::VARCHAR
            | Type::BPCHAR
            | Type::NAME
            | Type::CHAR
            | Type::UNKNOWN
            | Type::JSON
            | Type::XML
            | Type::REFCURSOR
            | Type::CSTRING
    )
}

/// The value; none if it is not understood.
pub(super) fn text(kind: &Type, value: &[u8]) -> Option<String> {
    if let Kind::Array(of) = kind.kind() {
        return super::arrays::text(of, value);
    }
    if is_text(kind) {
        return Some(String::from_utf8_lossy(value).into_owned());
    }
    let mut fields = Fields(value);
    let text = scalar(kind, &mut fields)?;
    fields.0.is_empty().then_some(text)
}

fn scalar(kind: &Type, value: &mut Fields<'_>) -> Option<String> {
    Some(match *kind {
        Type::BOOL => match value.byte()? {
            0 => "f".to_owned(),
            1 => "t".to_owned(),
            _ => return None,
        },
        Type::INT2 => i16::from_be_bytes(value.array()?).to_string(),
        Type::INT4 => i32::from_be_bytes(value.array()?).to_string(),
        Type::INT8 => i64::from_be_bytes(value.array()?).to_string(),
        Type::FLOAT4 => float(f32::from_be_bytes(value.array()?), 6),
        Type::FLOAT8 => float(f64::from_be_bytes(value.array()?), 15),
        Type::NUMERIC => numeric(value)?,
        Type::OID
        | Type::XID
        | Type::CID
        | Type::REGPROC
        | Type::REGPROCEDURE
        | Type::REGOPER
        | Type::REGOPERATOR
        | Type::REGCLASS
        | Type::REGTYPE
        | Type::REGCONFIG
        | Type::REGDICTIONARY
        | Type::REGROLE
        | Type::REGNAMESPACE
        | Type::REGCOLLATION => value.u32()?.to_string(),
        Type::XID8 => u64::from_be_bytes(value.array()?).to_string(),
        Type::PG_LSN => format!("{:X}/{:X}", value.u32()?, value.u32()?),
        Type::TID => format!("({},{})", value.u32()?, value.u16()?),
        Type::BYTEA => format!("\\x{}", data_encoding::HEXLOWER.encode(value.rest())),
        Type::UUID => uuid::Uuid::from_bytes(value.array()?).to_string(),
        Type::JSONB => (value.byte()? == 1).then(|| String::from_utf8_lossy(value.rest()).into_owned())?,
        Type::DATE => date(i32::from_be_bytes(value.array()?))?,
        Type::TIME => time(i64::from_be_bytes(value.array()?))?,
        Type::TIMETZ => {
            let time = time(i64::from_be_bytes(value.array()?))?;
            time + &zone(i32::from_be_bytes(value.array()?))?
        }
        Type::TIMESTAMP => timestamp(i64::from_be_bytes(value.array()?), "")?,
        Type::TIMESTAMPTZ => timestamp(i64::from_be_bytes(value.array()?), "+00")?,
        Type::INTERVAL => interval(value)?,
        Type::INET | Type::CIDR => inet(value)?,
        Type::MACADDR => octets(&value.array::<6>()?),
        Type::MACADDR8 => octets(&value.array::<8>()?),
        Type::BIT | Type::VARBIT => bits(value)?,
        _ => return None,
    })
}

/// The shortest that reads back as the same; with an exponent from 10^`large` on.
fn float(value: impl fmt::Display + fmt::LowerExp, large: i32) -> String {
    match value.to_string() {
        inf if inf.ends_with("inf") => inf.replace("inf", "Infinity"),
        plain => match format!("{value:e}").split_once('e') {
            Some((digits, exponent)) => match exponent.parse().unwrap_or(0) {
                exponent if (-4..large).contains(&exponent) => plain,
                exponent if exponent < 0 => format!("{digits}e-{:02}", -exponent),
                exponent => format!("{digits}e+{exponent:02}"),
            },
            None => plain, // NaN
        },
    }
}

/// Groups of four decimal digits, the first of which counts 10000^weight. One that is mostly zeros which are not there is not
/// understood: they would be written out.
fn numeric(value: &mut Fields<'_>) -> Option<String> {
    let (groups, weight, sign, scale) =
        (value.u16()?, i32::from(i16::from_be_bytes(value.array()?)), value.u16()?, usize::from(value.u16()?));
    let sign = match sign {
        0 => "",
        0x4000 => "-",
        0xc000 => return Some("NaN".to_owned()),
        0xd000 => return Some("Infinity".to_owned()),
        0xf000 => return Some("-Infinity".to_owned()),
        _ => return None,
    };
    let groups: Vec<u16> = (0..groups).map_while(|_| value.u16()).collect();
    let whole = usize::try_from(weight + 1).unwrap_or(0);
    if groups.iter().any(|group| *group > 9999) || 4 * whole + scale > 64 + 8 * groups.len() {
        return None;
    }
    let group =
        |exponent: i32| usize::try_from(weight - exponent).ok().and_then(|nth| groups.get(nth)).copied().unwrap_or(0);
    let mut text = String::new();
    for exponent in (0..=weight).rev() {
        let _ = write!(text, "{:04}", group(exponent)); // a String takes everything
    }
    let integer = text.trim_start_matches('0');
    let integer = if integer.is_empty() { "0" } else { integer };
    let mut fraction = String::new();
    for exponent in (1..).take(scale.div_ceil(4)) {
        let _ = write!(fraction, "{:04}", group(-exponent));
    }
    let (point, fraction) = (if scale > 0 { "." } else { "" }, fraction.get(..scale)?);
    Some(format!("{sign}{integer}{point}{fraction}"))
}

fn date(days: i32) -> Option<String> {
    match days {
        i32::MAX => Some("infinity".to_owned()),
        i32::MIN => Some("-infinity".to_owned()),
        days => {
            let at = calendar(i64::from(days).checked_mul(86_400 * 1_000_000)?)?;
            Some(at.strftime("%Y-%m-%d").to_string())
        }
    }
}

fn timestamp(micros: i64, zone: &str) -> Option<String> {
    match micros {
        i64::MAX => Some("infinity".to_owned()),
        i64::MIN => Some("-infinity".to_owned()),
        micros => calendar(micros).map(|at| format!("{}{zone}", at.strftime("%Y-%m-%d %H:%M:%S%.f"))),
    }
}

/// Microseconds since 2000-01-01, where PostgreSQL's time begins. The years before the first and after 9999 are not understood.
fn calendar(micros: i64) -> Option<jiff::civil::DateTime> {
    let at = jiff::civil::datetime(2000, 1, 1, 0, 0, 0, 0).checked_add(SignedDuration::from_micros(micros)).ok()?;
    (at.year() > 0).then_some(at)
}

/// Microseconds of the day; 24:00 is one.
fn time(micros: i64) -> Option<String> {
    (0..=86_400_000_000).contains(&micros).then(|| clock(micros.unsigned_abs()))
}

fn clock(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    let text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    match micros % 1_000_000 {
        0 => text,
        fraction => text + format!(".{fraction:06}").trim_end_matches('0'),
    }
}

/// Seconds west of Greenwich, written as hours east.
fn zone(west: i32) -> Option<String> {
    let seconds = west.checked_neg().filter(|east| east.abs() < 86_400)?;
    let sign = if seconds < 0 { '-' } else { '+' };
    let (hours, minutes, seconds) = (seconds.abs() / 3600, seconds.abs() / 60 % 60, seconds.abs() % 60);
    let mut text = format!("{sign}{hours:02}");
    if minutes > 0 || seconds > 0 {
        let _ = write!(text, ":{minutes:02}");
    }
    if seconds > 0 {
        let _ = write!(text, ":{seconds:02}");
    }
    Some(text)
}

/// In the style `postgres`: `1 year 2 mons -3 days +04:05:06`. Behind what is negative, a plus says that what follows is not.
fn interval(value: &mut Fields<'_>) -> Option<String> {
    let micros = i64::from_be_bytes(value.array()?);
    let (days, months) = (i32::from_be_bytes(value.array()?), i32::from_be_bytes(value.array()?));
    let (mut parts, mut negative) = (Vec::new(), false);
    for (count, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if count != 0 {
            let plus = if negative && count > 0 { "+" } else { "" };
            parts.push(format!("{plus}{count} {unit}{}", if count == 1 { "" } else { "s" }));
            negative = count < 0;
        }
    }
    if micros != 0 || parts.is_empty() {
        let sign = if micros < 0 {
            "-"
        } else if negative {
            "+"
        } else {
            ""
        };
        parts.push(format!("{sign}{}", clock(micros.unsigned_abs())));
    }
    Some(parts.join(" "))
}

/// Family, bits of the mask, whether it is a cidr, the address with its length.
fn inet(value: &mut Fields<'_>) -> Option<String> {
    let (family, bits, cidr, length) = (value.byte()?, value.byte()?, value.byte()?, value.byte()?);
    let (address, most) = match (family, length) {
        (2, 4) => (Ipv4Addr::from(value.array::<4>()?).to_string(), 32),
        (3, 16) => (Ipv6Addr::from(value.array::<16>()?).to_string(), 128),
        _ => return None,
    };
    match bits {
        bits if bits > most => None,
        bits if bits == most && cidr == 0 => Some(address),
        bits => Some(format!("{address}/{bits}")),
    }
}

fn octets(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
}

/// A count of bits, and them.
fn bits(value: &mut Fields<'_>) -> Option<String> {
    let count = usize::try_from(value.u32()?).ok()?;
    let bytes = value.rest();
    let bit = |nth: usize| bytes.get(nth / 8).map(|byte| if byte >> (7 - nth % 8) & 1 == 1 { '1' } else { '0' });
    (count.div_ceil(8) == bytes.len()).then(|| (0..count).filter_map(bit).collect())
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
