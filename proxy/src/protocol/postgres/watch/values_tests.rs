//! What values read as. `it::sql::binary_parameters_are_recorded_as_the_target_itself_writes_them` compares with PostgreSQL.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use super::*;
use proptest::prelude::*;

fn read(kind: &Type, hex: &str) -> Option<String> {
    text(kind, &data_encoding::HEXLOWER_PERMISSIVE.decode(hex.replace(' ', "").as_bytes()).unwrap())
}

#[test]
fn values_read_as_postgresql_writes_them() {
    for (kind, hex, written) in [
        (Type::NUMERIC, "0003 0001 4000 0004 0001 04d2 162e", "-11234.5678"),
        (Type::NUMERIC, "0001 ffff 0000 0003 000a", "0.001"),
        (Type::NUMERIC, "0001 fffe 0000 000a 000a", "0.0000001000"),
        (Type::NUMERIC, "0000 0000 0000 0002", "0.00"),
        (Type::NUMERIC, "0001 0003 0000 0000 0005", "5000000000000"),
        (Type::NUMERIC, "0000 0000 c000 0000", "NaN"),
        (Type::FLOAT4, "3dcccccd", "0.1"),
        (Type::FLOAT8, "7ff0000000000000", "Infinity"),
        (Type::DATE, "00000000", "2000-01-01"),
        (Type::DATE, "7fffffff", "infinity"),
        (Type::TIMESTAMPTZ, "0000000000000001", "2000-01-01 00:00:00.000001+00"),
        (Type::TIMETZ, "0000000000000000 ffffb9b0", "00:00:00+05"),
        (Type::INTERVAL, "ffffffffffffffff 00000001 0000000e", "1 year 2 mons 1 day -00:00:00.000001"),
        (Type::INET, "02 18 00 04 0a000001", "10.0.0.1/24"),
        (Type::CIDR, "02 20 01 04 0a000001", "10.0.0.1/32"),
        (Type::VARBIT, "00000003 a0", "101"),
        (Type::JSONB, "01 7b7d", "{}"),
        (Type::INT4_ARRAY, "00000000 00000000 00000017", "{}"),
        (Type::INT2_ARRAY, "00000001 00000001 00000015 00000002 00000000 00000002 0007 ffffffff", "[0:1]={7,NULL}"),
        (
            Type::TEXT_ARRAY,
            "00000002 00000000 00000019 00000001 00000001 00000002 00000001 00000001 22 00000000",
            "{{\"\\\"\",\"\"}}",
        ),
    ] {
        assert_eq!(read(&kind, hex).as_deref(), Some(written), "{kind} {hex}");
    }
}

#[test]
fn what_does_not_make_sense_is_not_understood() {
    for (kind, hex) in [
        (Type::BOOL, "02"),
        (Type::INT4, "000000"),
        (Type::INT4, "0000000000"),
        (Type::NUMERIC, "0001 7fff 0000 0000 0001"), // 131,069 digits
        (Type::NUMERIC, "0000 0000 0000 3fff"),
        (Type::NUMERIC, "0001 0000 0000 0000 2710"),
        (Type::NUMERIC, "0001 0000 1234 0000 0001"),
        (Type::DATE, "7ffffffe"),
        (Type::TIME, "7fffffffffffffff"),
        (Type::TIMETZ, "0000000000000000 80000000"),
        (Type::INET, "02 21 00 04 0a000001"),
        (Type::INET, "07 00 00 00"),
        (Type::JSONB, "02 7b7d"),
        (Type::VARBIT, "ffffffff a0"),
        (Type::INT4_ARRAY, "00000007 00000000 00000017"),
        (Type::INT4_ARRAY, "00000001 00000000 00000019 00000000 00000001"),
        (Type::INT4_ARRAY, "00000001 00000000 00000017 7fffffff 00000001"),
        (
            Type::INT4_ARRAY,
            "00000006 00000000 00000017 ffffffff 00000001 ffffffff 00000001 ffffffff 00000001 ffffffff 00000001 ffffffff 00000001 ffffffff 00000001",
        ),
        (Type::INT4_ARRAY, "00000001 00000000 00000017 00000001 00000001 00000002 0007"),
        (Type::POINT, "00000000000000000000000000000000"),
    ] {
        assert_eq!(read(&kind, hex), None, "{kind} {hex}");
    }
}

/// OIDs of built-in types, and arrays.
fn any_kind() -> impl Strategy<Value = Type> {
    let known: Vec<Type> = (0..5000).filter_map(known).collect();
    prop::sample::select(known)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn whatever_the_bytes_are_it_ends_and_grows_in_proportion(kind in any_kind(), value in prop::collection::vec(any::<u8>(), 0..120)) {
        if let Some(text) = text(&kind, &value) {
            prop_assert!(text.len() <= 128 + 16 * value.len(), "{} bytes of {}: {}", value.len(), kind, text.len());
        }
    }

    #[test]
    fn arrays_with_heads_that_could_be_are_read_or_refused(
        kind in any_kind(),
        dimensions in prop::collection::vec((0u32..4, -2i32..3), 0..8),
        elements in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..10)), 0..10),
    ) {
        let Kind::Array(of) = kind.kind() else { return Ok(()) };
        let mut value = [(dimensions.len() as u32).to_be_bytes(), [0; 4], of.oid().to_be_bytes()].concat();
        dimensions.iter().for_each(|(length, first)| value.extend([length.to_be_bytes(), first.to_be_bytes()].concat()));
        for element in elements {
            value.extend(element.as_ref().map_or(u32::MAX, |bytes| bytes.len() as u32).to_be_bytes());
            value.extend(element.unwrap_or_default());
        }
        let _ = text(&kind, &value);
    }

    #[test]
    fn numbers_read_as_what_they_are(value in any::<i64>(), real in any::<f64>()) {
        prop_assert_eq!(text(&Type::INT8, &value.to_be_bytes()), Some(value.to_string()));
        let read: f64 = text(&Type::FLOAT8, &real.to_be_bytes()).unwrap().parse().unwrap();
        prop_assert!(read.to_bits() == real.to_bits() || read.is_nan() && real.is_nan());
    }
}
